"""``msdm-engine doctor``."""

from __future__ import annotations

import platform

import click

from msdm_engine.errors import BackendError


@click.command()
def doctor() -> None:
    """Say what this machine has to run and build bundles with, and how to mend what does not fit.

    Works without any of it: a GPU, a driver, CUDA, TensorRT, ONNX Runtime. Exit code 6 where something is wrong; what
    is merely absent is not wrong.
    """
    from msdm_engine.doctor.probe import probe_gpus
    from msdm_engine.doctor.report import findings, installed_versions

    click.echo(f"   Python {platform.python_version()} on {platform.system()} {platform.machine()}")
    found = findings(probe_gpus(), installed_versions())
    for finding in found:
        click.echo(str(finding))
    wrong = [finding.what for finding in found if finding.trouble]
    if wrong:
        raise BackendError(
            f"something is wrong with {', '.join(wrong)}", hint="do what the arrows say, then run this again"
        )
    click.echo("   nothing is wrong")
