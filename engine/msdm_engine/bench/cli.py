"""``msdm-engine bench``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from msdm_engine.contract import FLOAT32

PATH = click.Path(path_type=Path)


class Numbers(click.ParamType):
    """Whole numbers with commas between them."""

    name = "N,N,..."

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """From text."""
        try:
            return value if isinstance(value, tuple) else tuple(int(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is not whole numbers with commas between them", param, ctx)


@click.command()
@click.argument("bundle", metavar="[BUNDLE]", type=PATH, required=False)
@click.option("--batches", type=Numbers(), default="4,1,2,8", show_default=True, help="the first is the base setting's")
@click.option("--sizes", type=Numbers(), default="128,64,256", show_default=True, help="sides in px")
@click.option("--steps", type=Numbers(), default="8,2,20", show_default=True, help="denoising steps")
@click.option("--threads", type=Numbers(), default=(), help="CPU threads of a batch [default: 1, and all cores]")
@click.option("--parallel", type=int, default=0, help="batches side by side; 0: what the cores have room for")
@click.option("--backend", default="onnxruntime", show_default=True, help="as in `msdm-engine sample`")
@click.option("--precision", default=FLOAT32, show_default=True, help="of the graphs")
@click.option("--quick", is_flag=True, help="fewer repeats: numbers to look at, not to quote")
@click.option("--out", type=PATH, help="JSON file to write")
def bench(
    bundle: Path | None,
    batches: tuple[int, ...],
    sizes: tuple[int, ...],
    steps: tuple[int, ...],
    threads: tuple[int, ...],
    parallel: int,
    backend: str,
    precision: str,
    quick: bool,
    out: Path | None,
) -> None:
    """Measure a bundle on this machine: throughput, latency, memory, stages, share of the matrix peak.

    From the base setting (the first of each list) one quantity is changed at a time. Ctrl-C keeps what is measured.
    """
    from msdm_engine.bench.run import Bench, closing_text, run_bench
    from msdm_engine.output.png import write_atomically

    wanted = Bench(bundle, backend, precision, batches, sizes, steps, threads, parallel, quick)
    document = run_bench(wanted, click.echo)
    click.echo(closing_text(document))
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(out, (json.dumps(document, indent=2, allow_nan=False) + "\n").encode())
