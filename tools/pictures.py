"""Draws the pictures of README and docs from the reference bundle: ``python tools/pictures.py``.

Generated pictures only. Every file carries the text metadata of a generated pair.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from msdm_engine import Bundle, Engine, Pair
from msdm_engine.demo import demo_request
from msdm_engine.output.contact_sheet import ContactSheet, draw_outlines
from msdm_engine.output.job import generate, set_header
from msdm_engine.output.png import png_bytes, write_atomically
from msdm_engine.requests.compose import compose
from msdm_engine.requests.request import GroupRequest, Layout, SetRequest

DOCS = Path(__file__).resolve().parents[1] / "docs" / "images"
KINDS = ("columnar", "round", "spindle", "gland")
SIZES_PX = (128, 256, 512)
GAP_PX = 6


def pairs_of(engine: Engine, request: SetRequest) -> tuple[list[Pair], dict[str, str]]:
    """All pairs of a request, and the text metadata of the set."""
    groups = compose(engine.bundle.manifest, request, 1)
    provenance = set_header(engine, request, groups)["provenance"]
    pairs = [pair for group in groups for pair in engine.sample(group.pairs(), group.sampling, group.guidance)]
    return pairs, provenance


def beside(pictures: list[np.ndarray], axis: int) -> np.ndarray:
    """Pictures in a row (axis 1) or column (axis 0) on white, aligned at their start."""
    other = max(picture.shape[1 - axis] for picture in pictures)
    cells = []
    for picture in pictures:
        shape = list(picture.shape)
        shape[axis], shape[1 - axis] = shape[axis] + GAP_PX, other
        cell = np.full(shape, 255, np.uint8)
        cell[: picture.shape[0], : picture.shape[1]] = picture
        cells.append(cell)
    return np.concatenate(cells, axis)


def label_picture(instances: np.ndarray) -> np.ndarray:
    """A label map in distinct colours on white."""
    colours = np.random.default_rng(0).integers(40, 220, (int(instances.max()) + 1, 3)).astype(np.uint8)
    colours[0] = 255
    return colours[instances]


def draw_sizes(engine: Engine) -> None:
    """Each architecture at each size, true to the pixel."""
    groups = [
        GroupRequest(Layout(kind), count=1, height_px=size, width_px=size) for kind in KINDS[:3] for size in SIZES_PX
    ]
    pairs, provenance = pairs_of(engine, SetRequest(tuple(groups), seed=11))
    images = [pair.image for pair in pairs]
    rows = [beside(images[i : i + len(SIZES_PX)], 1) for i in range(0, len(images), len(SIZES_PX))]
    write_atomically(DOCS / "sizes.png", png_bytes(beside(rows, 0), provenance))


def draw_layouts(engine: Engine) -> None:
    """For each kind: drawn layout, generated picture, picture with outlines."""
    for kind in KINDS:
        group = GroupRequest(Layout(kind), count=2, height_px=256, width_px=256)
        pairs, provenance = pairs_of(engine, SetRequest((group,), seed=4))
        rows = [beside([label_picture(p.instances), p.image, draw_outlines(p.image, p.instances)], 1) for p in pairs]
        write_atomically(DOCS / f"pair-{kind}.png", png_bytes(beside(rows, 1), provenance))


def draw_invented(engine: Engine) -> None:
    """Pairs whose layout the model invented, with the decoded masks."""
    from msdm_engine.requests.request import Invent

    group = GroupRequest(Invent(), count=8, height_px=128, width_px=128, preset="lilac-columnar-large")
    pairs, provenance = pairs_of(engine, SetRequest((group,), seed=2))
    sheet = ContactSheet()
    for pair in pairs:
        sheet.add(pair.image, pair.instances)
    write_atomically(DOCS / "invented.png", png_bytes(sheet.draw(), provenance))


def draw_demo() -> None:
    """The contact sheet of ``make demo``."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "set"
        generate(demo_request(), out)
        write_atomically(DOCS / "demo.png", (out / "contact_sheet.png").read_bytes())


def main() -> None:
    """Draws all of them."""
    DOCS.mkdir(parents=True, exist_ok=True)
    draw_demo()
    with Engine.open(Bundle.open()) as engine:
        draw_sizes(engine)
        draw_layouts(engine)
        draw_invented(engine)


if __name__ == "__main__":
    main()
