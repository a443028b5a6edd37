"""Power spectra of generated pictures over real ones: ``python -m benchmarks.spectrum BUNDLE... --data PACK``.

Each bundle makes a pair for every third val window (128 px, its default setting, one seed), with the conditions of
that window. Pictures are turned to the principal axes of colour of the train pixels; a Hann window keeps the edges
out. For each axis and band of frequency: amplitude of the generated pictures over that of the real windows, the root
of the ratio of mean power. Real tissue holds hardly more than rounding above 0.42 cycles a pixel: what a network adds
there is grid and noise. Writes ``benchmarks/results/spectrum.json``.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import numpy as np
from benchmarks.timer import environment, write_json

from msdm_engine.engine import Engine
from msdm_train.data.crops import request_of, windows
from msdm_train.data.pack import Pack
from msdm_train.evaluation.spectrum import EDGES, by_band, mean_power

RESULT = Path(__file__).parent / "results" / "spectrum.json"
SIDE_PX, EVERY, SEED = 128, 3, 5
PATH = click.Path(path_type=Path)


@click.command()
@click.argument("bundles", type=PATH, nargs=-1, required=True)
@click.option("--data", "pack", type=PATH, required=True, help="packed data set")
@click.option("--name", "names", multiple=True, help="what the JSON calls each bundle, in order [default: its folder]")
def main(bundles: tuple[Path, ...], pack: Path, names: tuple[str, ...]) -> None:
    """Measure, then write the JSON."""
    data = Pack(pack)
    basis = np.array(data.info.statistics["colour_basis"])
    crops = windows(data, "val", SIDE_PX)[::EVERY]
    real = mean_power([crop.image for crop in crops], basis)
    requests = [request_of(crop, number, SEED) for number, crop in enumerate(crops)]
    found: dict[str, Any] = {}
    for name, path in zip(names or [b.name for b in bundles], bundles, strict=True):
        with Engine.open(path) as engine:
            sampling = engine.bundle.manifest.sampling
            pictures = [pair.image for pair in engine.sample(requests, sampling, critic=False)]
            ratios = by_band(mean_power(pictures, basis), real)
            found[name] = {"sampling": asdict(sampling), "amplitude_over_real": ratios}
        click.echo(f"{name}: largest axis {ratios[0]}")
    document = {
        "protocol": f"{len(crops)} val windows of {SIDE_PX} px, seed {SEED}; axes of colour by falling spread",
        "edges_cycles_a_pixel": EDGES,
        "bundles": found,
        "environment": environment("onnxruntime"),
    }
    write_json(RESULT, document)


if __name__ == "__main__":
    main()
