"""Folds of fields: what one segmenter is trained on, another is held out from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from msdm_engine.errors import RequestError
from msdm_train.data.pack import FieldInfo


@dataclass(frozen=True)
class Fold:
    """Fold ``index`` of ``of``, the one that is held out."""

    index: int
    of: int

    def __post_init__(self) -> None:
        if self.of < 2 or not 0 <= self.index < self.of:
            raise RequestError(
                f"fold {self.index}/{self.of}", note="INDEX/OF with OF at least 2 and INDEX from 0 to OF - 1"
            )

    @classmethod
    def parse(cls, text: str) -> Fold:
        """``1/4`` -> fold 1 of 4."""
        index, _, of = text.partition("/")
        if not (index.isdecimal() and of.isdecimal()):
            raise RequestError(f"fold '{text}'", note="INDEX/OF, such as 0/4")
        return cls(int(index), int(of))

    def __str__(self) -> str:
        return f"{self.index}/{self.of}"


def folds(fields: Sequence[FieldInfo], n: int) -> list[tuple[str, ...]]:
    """Splits fields into ``n`` folds that are alike in their tags (stain, architecture, size) and in number.

    The field with the rarest tag chooses first, each the fold that has least of what it brings: the area of each of
    its tags counts as a share of that tag's area in all fields. Depends on nothing but the fields.

    Returns:
        the names of each fold's fields, sorted.

    Raises:
        RequestError: fewer fields than folds, or less than two folds.
    """
    if not 2 <= n <= len(fields):
        raise RequestError(f"{n} folds of {len(fields)} fields", note="2 folds or more, and a field for each")
    shares = _tag_shares(fields)
    rarest = {field.id: max(shares[field.id].values(), default=0.0) for field in fields}
    loads: list[dict[str, float]] = [{} for _ in range(n)]
    chosen: list[list[str]] = [[] for _ in range(n)]
    least, larger = divmod(len(fields), n)
    for field in sorted(fields, key=lambda f: (-rarest[f.id], f.id)):
        brought = shares[field.id]
        room = least + (sum(len(names) > least for names in chosen) < larger)
        open_folds = [at for at in range(n) if len(chosen[at]) < room]
        at = min(open_folds, key=lambda k: (_clash(loads[k], brought), len(chosen[k]), k))
        chosen[at].append(field.id)
        for tag, share in brought.items():
            loads[at][tag] = loads[at].get(tag, 0.0) + share
    return [tuple(sorted(names)) for names in chosen]


def split_by_fold(fields: Sequence[FieldInfo], fold: Fold) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the fields to train on, and of those of the fold, which is held out."""
    parts = folds(fields, fold.of)
    kept = sorted(name for at, part in enumerate(parts) if at != fold.index for name in part)
    return tuple(kept), parts[fold.index]


def _tag_shares(fields: Sequence[FieldInfo]) -> dict[str, dict[str, float]]:
    """For each field, how much of the area of each of its tags, over all fields, lies in it."""
    areas: dict[str, dict[str, float]] = {}
    totals: dict[str, float] = {}
    for field in fields:
        own = areas.setdefault(field.id, {})
        for region in field.regions:
            area = float((region.y1 - region.y0) * (region.x1 - region.x0))
            for key, value in region.tags.items():
                tag = f"{key}={value}"
                own[tag] = own.get(tag, 0.0) + area
                totals[tag] = totals.get(tag, 0.0) + area
    return {name: {tag: area / totals[tag] for tag, area in own.items()} for name, own in areas.items()}


def _clash(load: dict[str, float], brought: dict[str, float]) -> float:
    """How much of the brought tags the fold has already."""
    return sum(load.get(tag, 0.0) * share for tag, share in brought.items())
