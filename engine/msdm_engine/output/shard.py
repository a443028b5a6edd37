"""A part of a set, made alone and merged later: ``--shard i/n``.

A shard is a run of neighbouring pairs, cut where a batch ends. Its batches are therefore batches of the whole set, row
by row: no computation is padded that would not be padded there, and bytes are equal by construction, and not because a
runtime happens to treat each row of a batch alike. (Where pairs are drawn again or sizes alternate, batches fill
otherwise, as they do after a resume; there equality rests on the fixed batch shape, which benchmarks/determinism.py
measures.) Neighbours also fill whole tars and chunks.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from msdm_engine.errors import RequestError
from msdm_engine.requests.compose import ComposedGroup

_TEXT = re.compile(r"([0-9]{1,6})/([0-9]{1,6})")


@dataclass(frozen=True)
class Shard:
    """Shard ``number`` of ``of``; the first is 0.

    Raises:
        RequestError: a number out of range.
    """

    number: int
    of: int

    def __post_init__(self) -> None:
        if not 0 <= self.number < self.of:
            raise RequestError(
                f"shard {self.number}/{self.of}",
                note=f"the shards of n are 0/n to (n-1)/n{f', here to {self.of - 1}/{self.of}' if self.of else ''}",
            )

    @staticmethod
    def parse(text: str) -> Shard:
        """From ``i/n``; raises RequestError."""
        match = _TEXT.fullmatch(text)
        if match is None:
            raise RequestError(f"shard '{text}'", note="i/n with 0 <= i < n, as in 0/4", hint="give --shard 0/4")
        return Shard(int(match[1]), int(match[2]))

    def range_of(self, groups: Sequence[ComposedGroup]) -> range:
        """Numbers of its pairs: of U batches of the set those from ``U number // of`` to ``U (number + 1) // of``.

        Raises:
            RequestError: more shards than batches.
        """
        starts = [first for group in groups for first in _batch_starts(group)]
        if self.of > len(starts):
            raise RequestError(
                f"{self.of} shards of a set of {len(starts)} batch(es)",
                note="a shard holds whole batches, at least one",
                hint=f"give at most {len(starts)} shards, or a smaller --batch",
            )
        starts.append(sum(group.count for group in groups))
        first, stop = (starts[(len(starts) - 1) * i // self.of] for i in (self.number, self.number + 1))
        return range(first, stop)

    def header(self, pairs: range) -> dict[str, int]:
        """``shard`` of ``set.json``: the only part of it in which the shards of a set differ."""
        return {"number": self.number, "of": self.of, "first": pairs.start, "pairs": len(pairs)}


def _batch_starts(group: ComposedGroup) -> range:
    return range(group.first, group.first + group.count, group.sampling.batch)
