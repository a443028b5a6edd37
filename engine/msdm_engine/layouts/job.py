"""What ``msdm-engine layout`` and ``msdm-engine edit`` do, from options to a folder of maps."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msdm_engine.errors import InputError, RequestError
from msdm_engine.layouts.edit import Edit, edit_instances
from msdm_engine.layouts.map_set import SHEET_FILE, MapSet, plain, read_maps
from msdm_engine.layouts.mixture import MixtureMap, MixtureRequest, draw_mixture
from msdm_engine.layouts.outlines import default_bank
from msdm_engine.layouts.plan import AnyRequest, Plan
from msdm_engine.layouts.registry import draw_layout
from msdm_engine.layouts.request import check_number
from msdm_engine.layouts.statistics import MapStatistics, statistics_of

LAYOUT_FORMAT, LAYOUT_FILE = "msdm-layouts/1", "layout.json"
EDIT_FORMAT, EDIT_FILE = "msdm-edits/1", "edit.json"
MAX_MAPS = 100_000

#: Statistics that are printed beside each other.
SHOWN = (
    "count_per_mpx", "area_median_px", "area_q25_px", "area_q75_px", "aspect_median", "foreground", "touching",
    "alignment", "beside",
)  # fmt: skip


def draw_set(plan: Plan, count: int, out: Path) -> list[MapStatistics]:
    """Draws maps 0 to count - 1 of a plan into a folder, and returns their statistics."""
    if not 1 <= count <= MAX_MAPS:
        raise RequestError(f"count is {count}", note=f"legal: 1 to {MAX_MAPS} maps")
    bank = default_bank()
    outlines = {"licence": bank.licence, "source": bank.source}
    statistics = []
    with MapSet(out, LAYOUT_FILE) as maps:
        for index in range(count):
            request = plan.request(index)
            labels, part_of, record = _draw(request)
            statistics.append(statistics_of(labels))
            text = {"Layout": json.dumps(plain(record["request"])), "Data licence": f"outlines: {bank.licence}"}
            maps.add(f"{index:06d}.png", labels, {**record, "statistics": statistics[-1]}, text)
            maps.show(labels, part_of)
        header = {"format": LAYOUT_FORMAT, "count": count, "outlines": outlines, **plan.header}
        if plan.given:
            header["given"] = plan.given
            header["compared"] = compared(plan.given, statistics)
        maps.finish(header)
    return statistics


def _draw(request: AnyRequest) -> tuple[NDArray[np.uint16], NDArray[np.uint8] | None, dict[str, Any]]:
    """The map, the part of each nucleus in a mixture, and the record of both."""
    if not isinstance(request, MixtureRequest):
        return draw_layout(request), None, {"request": request}
    drawn = draw_mixture(request)
    sizes = {"height_px": request.height_px, "width_px": request.width_px}
    asked = {"parts": request.parts, **sizes, "seed": request.seed, "index": request.index}
    return drawn.labels, drawn.part_of, {"request": asked, "parts": _parts(request, drawn)}


def _parts(request: MixtureRequest, drawn: MixtureMap) -> list[dict[str, Any]]:
    parts, first = [], 1
    for number, part in enumerate(request.parts, start=1):
        nuclei = int(np.count_nonzero(drawn.part_of == number))
        share = float((drawn.regions == number).mean())
        parts.append({"kind": part.kind, "share": share, "nuclei": nuclei, "labels": [first, first + nuclei - 1]})
        first += nuclei
    return parts


def compared(given: tuple[MapStatistics, ...], drawn: list[MapStatistics]) -> dict[str, dict[str, list[float]]]:
    """10th percentile, median and 90th percentile over maps of each statistic, of given and of drawn maps."""
    result: dict[str, dict[str, list[float]]] = {}
    for name in vars(given[0]):
        result[name] = {}
        for who, maps in (("given", given), ("drawn", drawn)):
            values = np.array([getattr(statistics, name) for statistics in maps], np.float64)
            values = values[np.isfinite(values)]
            result[name][who] = np.percentile(values, [10, 50, 90]).tolist() if len(values) else [float("nan")] * 3
    return result


def describe_fit(plan: Plan, drawn: list[MapStatistics]) -> str:
    """A few lines on a fit: the kind, its parameters, and the statistics beside those of the given maps."""
    fitted = plan.fitted
    if fitted is None:
        return ""
    sizes, seen = fitted.sizes, fitted.architecture
    lines = [
        f"layout '{fitted.kind}', after {len(fitted.maps)} masks: spread of area {sizes.area_spread:.2f}, crowding "
        f"{sizes.crowding:.2f}",
        f"directions of the given nuclei: flank {seen.flank:.2f}, coherence {seen.coherence:.2f}, aspect ratio "
        f"{seen.aspect:.2f}; --layout KIND takes another kind",
    ]
    if fitted.empty:
        lines.append(f"{fitted.empty} given masks have no nuclei; no map is drawn after them")
    if over := plan.header["like"]["over_full"]:
        lines.append(f"{over} of {len(fitted.maps)} given masks hold more nuclei than this layout finds room for")
    lines.append(f"{'median [p10, p90] over maps':28s}{'given':>26s}{'drawn':>26s}")
    table = compared(plan.given, drawn)
    for name in SHOWN:
        cells = [f"{m:.4g} [{low:.3g}, {high:.3g}]" for low, m, high in table[name].values()]
        lines.append(f"{name:28s}{cells[0]:>26s}{cells[1]:>26s}")
    return "\n".join(lines)


def edit_set(folder: Path, edit: Edit, seed: int, out: Path) -> tuple[int, int]:
    """Edits every map of a folder into another, under the same names as PNG; returns nuclei before and after."""
    check_number("seed", seed)
    sources = read_maps(folder)
    stems = Counter([path.stem for path, _ in sources] + [Path(SHEET_FILE).stem])
    if twice := sorted(stem for stem, number in stems.items() if number > 1):
        raise InputError(
            f"mask folder {folder} holds several files named {twice[0]}", note=f"{twice[0]}.png can be written once"
        )
    total = [0, 0]
    asked = {"operation": type(edit).__name__.lower(), **plain(edit)}
    with MapSet(out, EDIT_FILE) as maps:
        for index, (path, labels) in enumerate(sources):
            try:
                edited = edit_instances(labels, edit, seed=seed, index=index)
            except (InputError, RequestError) as error:
                raise type(error)(f"mask {path.name}: {error.what}", note=error.note, hint=error.hint) from error
            before, after = statistics_of(labels), statistics_of(edited)
            total = [total[0] + before.count, total[1] + after.count]
            text = {"Edit": json.dumps({**asked, "seed": seed, "index": index}), "Source": path.name}
            maps.add(f"{path.stem}.png", edited, {"source": path.name, "before": before, "after": after}, text)
            for shown in (labels, edited):
                maps.show(shown)
        maps.finish({"format": EDIT_FORMAT, "edit": asked, "seed": seed})
    return total[0], total[1]
