"""``msdm-engine demo``: four morphologies and colours from the reference bundle, and their gallery."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from msdm_engine.requests.request import SetRequest


def demo_request() -> SetRequest:
    """The request of the demo, which ships with the engine."""
    from msdm_engine.requests.file import parse_request

    return parse_request(resources.files("msdm_engine").joinpath("demo.yaml").read_text(), root=Path("."))


@click.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="folder to write; must not exist")
def demo(out: Path) -> None:
    """Generate 16 pairs (columnar, spindle, round, an unseen colour) and a gallery to look at."""
    from msdm_engine.gallery import write_gallery
    from msdm_engine.output.job import Log, generate

    generate(demo_request(), out, log=Log())
    click.echo(f"open {write_gallery(out).resolve().as_uri()} in a browser")
