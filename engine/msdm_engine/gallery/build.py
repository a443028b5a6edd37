"""From the folder of a set to its ``gallery.html``."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tqdm import tqdm

from msdm_engine.errors import InputError, OutputError, RequestError
from msdm_engine.gallery.columns import Columns
from msdm_engine.gallery.manifest import Record, check_files, read_header, records
from msdm_engine.gallery.measure import Measured, measure, thumbnail_px
from msdm_engine.gallery.page import detail_block, json_for_html, render
from msdm_engine.output.pair_set import MANIFEST_FILE, NOTICE
from msdm_engine.output.png import write_atomically

GALLERY_FILE = "gallery.html"
#: Pairs in a detail block: the page splits a block into its lines when one of them comes into view.
BLOCK = 64
#: Beyond it browsers take seconds to open a page, and their longest text is 512 MiB.
MAX_PAGE_BYTES = 256 * 2**20
#: Parts of ``set.json`` that the page shows, in this order.
HEADER_PARTS = ("bundle", "data", "engine", "sampling", "request")


def write_gallery(
    set_folder: Path, out: Path | None = None, *, first: int | None = None, progress: bool = False
) -> Path:
    """Writes the gallery of a generated set: one HTML file, shown from disk by any browser.

    Pictures are read one pair at a time; what stays in memory is the text of the page, 2 to 5 kB a pair of 128 px.
    Nothing is written before every pair has been read.

    Args:
        set_folder: what ``msdm-engine sample --out`` wrote.
        out: the HTML file; it refers to the set's pictures by relative paths. None: ``gallery.html`` in the set.
        first: show this many pairs, the first ones of the manifest; None: all.
        progress: show a progress bar.

    Returns:
        the file.

    Raises:
        InputError: the folder is no set; a line of the manifest is damaged; a picture is missing, damaged or of
            another size than its line says; the page would exceed :data:`MAX_PAGE_BYTES`.
        RequestError: ``first`` is less than one.
        OutputError: the file cannot be written.
    """
    if first is not None and first < 1:
        raise RequestError(f"the first {first} pairs are asked for", note="at least 1")
    header = read_header(set_folder)
    out = set_folder / GALLERY_FILE if out is None else out
    base = _base(set_folder, out)
    # All lines are read before the first picture, so that a damaged set fails within seconds.
    total = 0
    for record in records(set_folder):
        total += 1
        if first is None or total <= first:
            check_files(set_folder, record)
    count = total if first is None else min(first, total)
    if not count:
        raise InputError(
            f"{set_folder / MANIFEST_FILE} holds no pair",
            hint="complete the set with the command that made it and --resume",
        )
    side_px = thumbnail_px(count)
    shown = tqdm(islice(records(set_folder), count), total=count, unit="pair", disable=not progress)
    pairs = ((record, measure(set_folder, record, side_px)) for record in shown)
    write_atomically(out, page_of(pairs, header, name=set_folder.resolve().name, base=base, total=total))
    return out


def page_of(
    pairs: Iterable[tuple[Record, Measured]], header: dict[str, Any], *, name: str, base: str, total: int
) -> bytes:
    """The page of measured pairs, which are taken one at a time.

    Args:
        name: of the set.
        base: relative address of the set's folder from the page, empty or ending in ``/``.
        total: pairs in the set, of which these are the first.

    Raises:
        InputError: the page would exceed :data:`MAX_PAGE_BYTES`.
    """
    columns = Columns()
    details = b"".join(_detail_blocks(pairs, columns))
    about = {
        "name": name,
        "notice": NOTICE,
        "base": base,
        "block": BLOCK,
        "total": total,
        "header": {key: header[key] for key in HEADER_PARTS if key in header},
    }
    page = render(
        {"set": json_for_html(about), "pairs": json_for_html(columns.to_json()), "details": details},
    )
    _check_size(len(page), len(columns))
    return page


def _detail_blocks(pairs: Iterable[tuple[Record, Measured]], columns: Columns) -> Iterator[bytes]:
    lines: list[str] = []
    size = 0
    for record, measured in pairs:
        columns.add(record, measured)
        lines.append(f"{measured.thumbnail}\t{measured.outlines}")
        size += len(lines[-1])
        if len(lines) == BLOCK:
            _check_size(size, len(columns))
            yield detail_block(lines)
            lines = []
    if lines:
        yield detail_block(lines)


def _check_size(size: int, count: int) -> None:
    if size > MAX_PAGE_BYTES:
        fitting = max(1, int(count * MAX_PAGE_BYTES / size * 0.9))
        raise InputError(
            f"the page of the first {count} pairs takes {size / 2**20:.0f} MiB",
            note=f"at most {MAX_PAGE_BYTES / 2**20:.0f} MiB, which a browser opens in seconds",
            hint=f"show a part of the set: --first {fitting}",
        )


def _base(set_folder: Path, out: Path) -> str:
    """Relative address of the set from the folder of the page."""
    try:
        relative = os.path.relpath(set_folder.resolve(), out.parent.resolve())
    except ValueError as error:  # two drives of Windows
        raise OutputError(
            f"{out} cannot refer to the pictures in {set_folder}: {error}", hint="write it on the drive of the set"
        ) from error
    parts = Path(relative).parts
    return "".join(f"{quote(part, errors='surrogateescape')}/" for part in parts if part != ".")
