"""What the critic costs: ``python -m benchmarks.critic --bundle BUNDLE``.

Sampling without and with the critic, with its agreement computed, and the parts by themselves: the graph, and decoding
and comparing, which the engine leaves to the threads that encode. The output is checked before a number is printed: the
same pictures with and without, agreements in [0, 1]. Writes ``benchmarks/results/critic.json``; a bundle without critic
is an error and nothing is written.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy as np
from benchmarks.sample import requests
from benchmarks.timer import environment, measure, write_json

from msdm_engine import Bundle, Engine, Pair
from msdm_engine.contract import CRITIC, CRITIC_INPUTS
from msdm_engine.critic import agreement_of, image_from_pictures
from msdm_engine.redraw import check_has_critic

RESULT = Path(__file__).parent / "results" / "critic.json"


def check(scored: list[Pair], plain: list[Pair]) -> list[float]:
    """Refuses to time anything that is not right; returns the Dice of each pair."""
    found = []
    for one, other in zip(scored, plain, strict=True):
        assert np.array_equal(one.image, other.image), "the critic changed a picture"
        assert one.agreement is not None and other.agreement is None
        assert 0 <= one.agreement.dice <= 1 and 0 <= one.agreement.aji <= 1
        found.append(one.agreement.dice)
    return found


def cost(engine: Engine, size_px: int, repeats: int) -> dict[str, Any]:
    """Seconds of one full batch at this size."""
    batch = engine.bundle.manifest.sampling.batch
    wanted = requests(engine.bundle, size_px, batch)
    scored, plain = list(engine.sample(wanted)), list(engine.sample(wanted, critic=False))
    dice = check(scored, plain)
    maps = [pair.seen.maps for pair in scored if pair.seen is not None]
    image = image_from_pictures(np.stack([pair.image for pair in scored]))
    functions = {
        "sample, no critic": lambda: list(engine.sample(wanted, critic=False)),
        "sample, critic": lambda: list(engine.sample(wanted)),
        "the graph": lambda: engine.backend.run(CRITIC, {CRITIC_INPUTS[0]: image}),
        "decode and compare": lambda: [agreement_of(m, p.instances) for m, p in zip(maps, scored, strict=True)],
    }
    timings = measure(functions, warmups=1, repeats=repeats)
    whole = timings["sample, no critic"].median_s
    return {
        "pairs": batch,
        "mean_dice": round(float(np.mean(dice)), 4),
        "timings": {name: timing.as_dict() for name, timing in timings.items()},
        "graph_share_of_sampling": round(timings["the graph"].median_s / whole, 4),
        "decode_share_of_sampling": round(timings["decode and compare"].median_s / whole, 4),
    }


@click.command()
@click.option("--bundle", "folder", type=click.Path(path_type=Path), help="bundle [default: the reference bundle]")
@click.option("--threads", type=int, default=0, help="CPU threads of a graph; 0: one for each core")
@click.option("--repeats", type=int, default=5, show_default=True)
@click.option("--size", "sides_px", type=int, multiple=True, default=(128, 256), show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=RESULT, show_default=True)
def main(folder: Path | None, threads: int, repeats: int, sides_px: tuple[int, ...], out: Path) -> None:
    """Measures and writes the JSON."""
    bundle = Bundle.open(folder)
    check_has_critic(bundle.manifest)
    with Engine.open(bundle, threads=threads, parallel=1) as engine:
        sizes = {f"{size_px} px": cost(engine, size_px, repeats) for size_px in sides_px}
        identity = engine.backend.identity
    sampling = bundle.manifest.sampling
    document = {
        "what": f"one batch of columnar pairs, {sampling.solver}, {sampling.steps} steps, in memory; interleaved",
        "bundle": {"name": bundle.manifest.name, "sha256": bundle.sha256},
        "critic": bundle.manifest.critic,
        "critic_mib": round(len(bundle.graphs[CRITIC]) / 2**20, 3),
        "engine": identity,
        "sizes": sizes,
        "environment": environment("numpy", "onnxruntime", "opencv-python-headless"),
    }
    write_json(out, document)
    click.echo(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
