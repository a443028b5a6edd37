"""What was quantised, in lines for a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from msdm_engine.bundle.manifest import Variant


def lines(variant: Variant) -> Iterator[str]:
    """Share of the matrix work, how scales were chosen, what is kept, and the blocks."""
    details = variant.details
    entries = details["quantized"]
    yield f"{100 * details['share_of_matrix_work']:.1f} % of a step's matrix work, {len(entries)} nodes, quantised"
    criteria = Counter(entry["criterion"] for entry in entries)
    yield "scales by " + ", ".join(f"{name} {count}" for name, count in criteria.most_common())
    moved = sum(entry["channels_moved"] > 0 for entry in entries)
    followed = sum(entry["levels"] is not None for entry in entries)
    yield f"{moved} inputs with migrated channels, {followed} that follow the noise level"
    yield f"the rest is {details['rest']}; kept in it:"
    for entry in details["kept"]:
        yield f"  {entry['rule']:10s} {len(entry['nodes']):3d}  {entry['reason']}"
    yield "block: precision, share of the matrix work"
    for name, block in details["blocks"].items():
        yield f"  {name:28s} {block['precision']:14s} {100 * block['share_of_matrix_work']:5.2f} %"
