"""Morphology of drawn layouts beside real tiles of the same architecture, and the time of a large layout.

    python -m benchmarks.layouts                # train tiles and times; prints a table, writes results/layouts.json
    python -m benchmarks.layouts --split val    # val tiles; adds their part to that file under the key "val"

Layouts are drawn at the size of the real tiles (256 x 320 px) with the defaults of their kind, and ``matched``:
with the area, aspect ratio and count of each real tile in turn, beside those of the same tiles (a tile too dense for
its layout is named and left out on both sides). ``like``: with a layout of their kind fitted to all these tiles
together (``fit_layout``, as ``msdm-engine layout --like``), each tile followed in turn; of a tile that is too dense,
as many nuclei are drawn as find room. ``gland`` stands beside columnar tiles, as no tile is tagged so.

The defaults were chosen while looking at the train tiles, and so were the thresholds by which ``fit_layout`` names a
kind: there, the comparison shows how far the layouts were fitted. On val tiles (12 tiles of 3 fields: 2 columnar, 8
round, 2 spindle) it shows how they do on tiles that were not looked at. ``recognised`` counts the kinds that
``kind_of`` names: of folders of 8 drawn maps, with seeds that the thresholds were not chosen on, and of single real
tiles against their tag, which was given by eye. Times use one process; the labels of each map are checked before a
number is printed.
"""

from __future__ import annotations

import csv
import dataclasses
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import click
import cv2
import numpy as np
from benchmarks.timer import environment, measure, write_json
from numpy.typing import NDArray

from msdm_engine.errors import RequestError
from msdm_engine.layouts import LAYOUTS, LayoutRequest, draw_layout, fit_layout
from msdm_engine.layouts.architecture import architecture_of, kind_of
from msdm_engine.layouts.request import MAX_ASPECT, MAX_COVERAGE
from msdm_engine.layouts.statistics import MapStatistics, nuclei_of, statistics_of

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data" / "bbbc038_histology"
RESULT = ROOT / "benchmarks" / "results" / "layouts.json"
TILE = {"height_px": 256, "width_px": 320}
BESIDE = {"columnar": "columnar", "round": "round", "spindle": "spindle", "gland": "columnar"}
SHOWN = (
    "count_per_mpx", "area_median_px", "area_q25_px", "area_q75_px", "aspect_median", "foreground", "neighbour",
    "touching", "cut", "alignment", "beside",
)  # fmt: skip

Summary = dict[str, dict[str, float]]


def summary(statistics: list[MapStatistics]) -> Summary:
    """Median, 10th and 90th percentile over maps of each statistic."""
    rows = [dataclasses.asdict(s) for s in statistics]
    result = {}
    for name in rows[0]:
        values = np.array([row[name] for row in rows], np.float64)
        low, middle, high = np.nanpercentile(values, [10, 50, 90]).tolist()
        result[name] = {"median": round(middle, 4), "p10": round(low, 4), "p90": round(high, 4)}
    return result


def real_masks(split: str) -> dict[str, list[NDArray[np.int32]]]:
    """Instance maps of the tiles of a split by architecture; empty where the data is absent."""
    if not DATA.is_dir():
        return {}
    with (DATA / "metadata.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == split]
    found: dict[str, list[NDArray[np.int32]]] = {}
    for row in rows:
        labels = cv2.imread(str(DATA / "masks" / f"{row['id']}.png"), cv2.IMREAD_UNCHANGED)
        if labels is None:
            raise click.ClickException(f"mask of tile {row['id']} cannot be read")
        found.setdefault(row["architecture"], []).append(labels.astype(np.int32))
    return found


def checked(request: LayoutRequest) -> NDArray[np.uint16]:
    labels = draw_layout(request)
    if labels.shape != (request.height_px, request.width_px) or not np.array_equal(
        np.unique(labels[labels > 0]), np.arange(1, int(labels.max()) + 1)
    ):
        raise click.ClickException(f"{request} drew a map with wrong labels")
    return labels


def matched(
    kind: str, real: list[MapStatistics], draws: int
) -> tuple[list[MapStatistics], list[MapStatistics], list[str]]:
    """Layouts asked for with the count, area and aspect ratio of real tiles.

    Returns:
        The tiles whose every request was drawn, the statistics of those maps, and the refusals of the other tiles.
    """
    tiles, drawn, refusals = [], [], []
    for number, tile in enumerate(real):
        if np.isnan(tile.area_median_px):
            refusals.append("the tile has no whole nucleus to take an area from")
            continue
        aspect = float(np.clip(tile.aspect_median, 1, MAX_ASPECT.get(kind, 8)))
        asked = {"count": tile.count, "area_px": tile.area_median_px, "aspect_ratio": aspect}
        try:
            request = LayoutRequest.from_options(kind=kind, **TILE, seed=number, **asked)
            of_tile = [statistics_of(checked(replace(request, index=index))) for index in range(draws)]
        except RequestError as error:
            refusals.append(error.what)
            continue
        tiles.append(tile)
        drawn += of_tile
    return tiles, drawn, refusals


def like(kind: str, masks: list[NDArray[np.int32]], draws: int) -> dict[str, object]:
    """Layouts fitted to these tiles together, each tile followed ``draws`` times."""
    fitted = fit_layout(masks, kind)
    drawn = [statistics_of(checked(fitted.request(1, index))) for index in range(draws * len(fitted.maps))]
    return {
        "tiles": len(fitted.maps), "over_full": fitted.over_full(), "maps": len(drawn),
        "sizes": dataclasses.asdict(fitted.sizes), "statistics": summary(drawn),
    }  # fmt: skip


def recognised(real: dict[str, list[NDArray[np.int32]]], folders: int) -> dict[str, dict[str, dict[str, int]]]:
    """How often each kind is named, of drawn folders and of single real tiles."""
    drawn = {}
    for kind in LAYOUTS:
        requests = [[LayoutRequest(kind, **TILE, seed=5000 + f, index=i) for i in range(8)] for f in range(folders)]
        seen = [architecture_of([nuclei_of(checked(request)) for request in folder]) for folder in requests]
        drawn[kind] = dict(Counter(kind_of(s) for s in seen))
    tiles = {
        tag: dict(Counter(kind_of(architecture_of([nuclei_of(m)])) for m in masks if m.any()))
        for tag, masks in sorted(real.items())
    }
    return {"drawn_folders": drawn, "real_tiles": tiles}


def time_large(side_px: int, repeats: int) -> dict[str, dict[str, object]]:
    """Time of one layout of side x side px with the defaults of each kind, in turns; every map is checked after it."""
    drawn: dict[str, list[NDArray[np.uint16]]] = {kind: [] for kind in LAYOUTS}
    requests = {kind: LayoutRequest(kind, side_px, side_px, seed=1) for kind in LAYOUTS}
    timings = measure(
        {kind: lambda kind=kind: drawn[kind].append(draw_layout(requests[kind])) for kind in LAYOUTS},  # type: ignore[misc]
        warmups=1,
        repeats=repeats,
    )
    result: dict[str, dict[str, object]] = {}
    for kind, maps in drawn.items():
        first = checked(requests[kind])
        if any(not np.array_equal(first, other) for other in maps):
            raise click.ClickException(f"{requests[kind]} drew different maps")
        result[kind] = {**timings[kind].as_dict(), "side_px": side_px, "nuclei": int(first.max())}
        click.echo(f"{kind} {side_px} x {side_px}, {first.max()} nuclei: {timings[kind]}")
    return result


def show(name: str, values: Summary) -> None:
    cells = [f"{values[s]['median']:.4g} [{values[s]['p10']:.3g}, {values[s]['p90']:.3g}]" for s in SHOWN]
    click.echo(f"{name:22s} " + " | ".join(cells))


def compare(real: dict[str, list[NDArray[np.int32]]], maps: int, draws: int) -> dict[str, dict[str, object]]:
    """Real tiles, matched, fitted and default layouts of each kind; prints and returns their statistics."""
    click.echo(f"{'':22s} " + " | ".join(SHOWN) + "   median [p10, p90] over maps")
    kinds: dict[str, dict[str, object]] = {}
    for kind in LAYOUTS:
        entry: dict[str, object] = {}
        drawn = summary([statistics_of(checked(LayoutRequest(kind, **TILE, seed=seed))) for seed in range(maps)])
        masks = real.get(BESIDE[kind], [])
        tiles = [statistics_of(mask) for mask in masks]
        if tiles:
            entry["real"] = {"architecture": BESIDE[kind], "tiles": len(tiles), "statistics": summary(tiles)}
            show(f"real {BESIDE[kind]} ({len(tiles)})", summary(tiles))
            same_tiles, same, refusals = matched(kind, tiles, draws)
            # Refused tiles are left out on both sides: they are the dense ones, which would tilt the comparison.
            entry["matched"] = {
                "tiles": len(same_tiles), "refused": refusals, "maps": len(same),
                "real_statistics": summary(same_tiles), "statistics": summary(same),
            }  # fmt: skip
            show(f"  of them matched ({len(same_tiles)})", summary(same_tiles))
            show(f"{kind} matched ({len(same)})", summary(same))
            for refusal in refusals:
                click.echo(f"  not matched: {refusal}")
            entry["like"] = after = like(kind, masks, draws)
            show(f"{kind} like ({after['maps']})", after["statistics"])  # type: ignore[arg-type]
        entry["defaults"] = {"maps": maps, "statistics": drawn}
        show(f"{kind} defaults ({maps})", drawn)
        click.echo()
        kinds[kind] = entry
    return kinds


@click.command()
@click.option("--split", type=click.Choice(["train", "val"]), default="train", show_default=True, help="Real tiles.")
@click.option("--maps", default=40, show_default=True, help="Maps of each kind with its defaults.")
@click.option("--draws", default=4, show_default=True, help="Maps for each real tile in the matched comparison.")
@click.option("--repeats", default=5, show_default=True, help="Timed maps of each kind at 4096 x 4096 px (train).")
@click.option("--out", type=click.Path(path_type=Path), default=RESULT, show_default=False)
def main(split: str, maps: int, draws: int, repeats: int, out: Path) -> None:
    """Compares layouts with real tiles, times large layouts, prints both and writes them as JSON."""
    real = real_masks(split)
    if split == "val" and not real:
        raise click.ClickException("no tile pack in ../shared/data")
    result: dict[str, object] = {
        "how": __doc__,
        "command": f"python -m benchmarks.layouts --split {split} --maps {maps} --draws {draws} --repeats {repeats}",
        "environment": environment("numpy", "opencv-python-headless"),
        "opencv_threads": cv2.getNumThreads(),
        "max_coverage": dict(MAX_COVERAGE),
    }
    if not real:
        result["real"] = "skipped: no tile pack in ../shared/data"
        click.echo("real tiles: skipped, no tile pack in ../shared/data")
    result["kinds"] = compare(real, maps, draws)
    result["recognised"] = recognised(real, folders=10)
    click.echo(f"recognised: {result['recognised']}")
    before = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
    if split == "val":
        result = {**before, "val": result}
    else:
        result["time"] = time_large(4096, repeats)
        result |= {"val": before["val"]} if "val" in before else {}
    write_json(out, result)
    click.echo(f"written: {out.name}")


if __name__ == "__main__":
    main()
