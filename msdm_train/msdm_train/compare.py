"""Real tiles beside pairs generated from their masks, as a report for local eyes only.

Each real crop lends a pair its instance map, its colour statistics and its description; what differs between the
two pictures is then the generator's doing. The report holds real tiles: it says so, and keeps itself out of git.
"""

from __future__ import annotations

import base64
import html
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from msdm_engine.conditions.colour import Colour, colour_from_image
from msdm_engine.errors import InputError, OutputError
from msdm_engine.output.contact_sheet import draw_outlines
from msdm_engine.output.png import png_bytes
from msdm_engine.pairs import Pair, PairRequest
from msdm_train.data.crops import Crop, request_of, windows
from msdm_train.data.pack import Pack

NOTICE = "Contains real tissue tiles. For local viewing only: do not commit, publish or pass on."
GAP_PX = 4

#: What makes pairs of requests, in their order: the engine, or a stand-in of a test.
Generate = Callable[[Sequence[PairRequest]], Iterable[Pair]]


def real_crops(pack: Pack, split: str, count: int, side_px: int) -> list[Crop]:
    """Evenly spaced picks of the disjoint windows of a split, in reading order; the same ones at every call.

    Windows fill each region from its upper left corner. None is chosen by its looks.

    Raises:
        InputError: the split has fewer windows of that size.
    """
    found = windows(pack, split, side_px)
    if len(found) < count:
        raise InputError(
            f"the split '{split}' of {pack.info.name} has {len(found)} windows of {side_px} px, not {count}",
            hint="ask for fewer with --count, or for smaller ones with --size",
        )
    return [found[(2 * i + 1) * len(found) // (2 * count)] for i in range(count)]


def requests_of(crops: Sequence[Crop], seed: int) -> list[PairRequest]:
    """A request for each crop: its mask, its own colour and its metadata."""
    return [request_of(crop, index, seed) for index, crop in enumerate(crops)]


def write_report(out: Path, crops: Sequence[Crop], generate: Generate, *, seed: int, facts: dict[str, str]) -> None:
    """Generates a pair for each crop and writes ``compare.html`` and ``compare.png`` into a new folder.

    Args:
        out: must not exist or be empty; it appears when everything is in it.
        facts: what the head of the report says of bundle, data and sampling.

    Raises:
        OutputError: ``out`` holds something, or cannot be written.
    """
    check_free(out)
    pairs = list(generate(requests_of(crops, seed)))
    rows = [_row(crop, pair) for crop, pair in zip(crops, pairs, strict=True)]
    text = {"Comment": NOTICE}
    temporary = out.with_name(out.name + ".tmp")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        (temporary / ".gitignore").write_text("*\n")
        (temporary / "compare.png").write_bytes(png_bytes(_stack(rows), text))
        (temporary / "compare.html").write_text(_page(crops, pairs, rows, facts), encoding="utf-8")
        os.replace(temporary, out)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise OutputError(f"report {out} cannot be written: {error.strerror or error}") from error


def check_free(out: Path) -> None:
    """Raises OutputError where something is in the way, before any pair is generated."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(f"report {out} exists and is not empty", hint="choose another --out")


def _row(crop: Crop, pair: Pair) -> np.ndarray:
    """Real, real with outlines, generated, generated with outlines: [S, 4 S + 3 gaps, 3]."""
    gap = np.full((len(crop.image), GAP_PX, 3), 255, np.uint8)
    pictures = (crop.image, draw_outlines(crop.image, crop.instances))
    made = (pair.image, draw_outlines(pair.image, pair.instances))
    return np.concatenate([pictures[0], gap, pictures[1], gap, made[0], gap, made[1]], 1)


def _stack(rows: Sequence[np.ndarray]) -> np.ndarray:
    gap = np.full((GAP_PX, rows[0].shape[1], 3), 255, np.uint8)
    return np.concatenate([part for row in rows for part in (row, gap)][:-1])


def colour_gap(asked: Colour, got: Colour) -> dict[str, float]:
    """Root mean square difference of the mean RGB of each region that both have, in 8-bit units."""
    gaps = {}
    for name in ("foreground", "background"):
        a, b = getattr(asked, name), getattr(got, name)
        if a is not None and b is not None:
            gaps[name] = float(np.sqrt(np.mean((np.subtract(a.mean, b.mean)) ** 2)))
    return gaps


def _page(crops: Sequence[Crop], pairs: Sequence[Pair], rows: Sequence[np.ndarray], facts: dict[str, str]) -> str:
    figures = []
    for crop, pair, row in zip(crops, pairs, rows, strict=True):
        picture = base64.b64encode(png_bytes(row, {"Comment": NOTICE})).decode("ascii")
        gaps = colour_gap(pair.request.colour, colour_from_image(pair.image, crop.instances))
        off = ", ".join(f"{name} {value:.1f}" for name, value in gaps.items())
        caption = f"field {crop.field}, y {crop.y}, x {crop.x}: {crop.region.description or 'no description'}"
        figures.append(
            f'<figure><img alt="real and generated" src="data:image/png;base64,{picture}">'
            f"<figcaption>{html.escape(caption)}<br>mean colour off by (8-bit units): {off}</figcaption></figure>"
        )
    told = "".join(f"<tr><th>{html.escape(k)}</th><td>{html.escape(v)}</td></tr>" for k, v in facts.items())
    return PAGE.format(notice=NOTICE, facts=told, figures="\n".join(figures))


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>msdm: real and generated</title>
<style>
body {{ font: 15px/1.4 system-ui, sans-serif; margin: 1.5rem auto; max-width: 1100px; color: #222; }}
.notice {{ background: #a40000; color: #fff; padding: .7rem 1rem; font-weight: 600; }}
th {{ text-align: left; padding-right: 1.5rem; font-weight: 600; vertical-align: top; }}
figure {{ margin: 1.2rem 0; }}
img {{ width: 100%; image-rendering: pixelated; }}
.columns {{ display: grid; grid-template-columns: repeat(4, 1fr); font-weight: 600; }}
</style></head><body>
<p class="notice">{notice}</p>
<h1>Real tiles and pairs generated from their masks</h1>
<table>{facts}</table>
<div class="columns">
<span>real</span><span>real, outlines</span><span>generated</span><span>generated, outlines</span>
</div>
{figures}
</body></html>
"""
