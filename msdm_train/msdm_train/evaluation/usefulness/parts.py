"""Parts of the experiment: one segmenter each, with a JSON file of its own."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from msdm_engine.output.png import write_atomically
from msdm_train.data.pack import Pack
from msdm_train.evaluation.usefulness.arms import ARMS, Arm, source_of
from msdm_train.evaluation.usefulness.config import Protocol, key_of
from msdm_train.evaluation.usefulness.folds import Cell
from msdm_train.evaluation.usefulness.score import score_fields
from msdm_train.evaluation.usefulness.synthetic import SEED, CellData
from msdm_train.segmentation.config import SegmenterConfig
from msdm_train.segmentation.predict import Segmenter
from msdm_train.segmentation.train import train_segmenter


@dataclass(frozen=True)
class Part:
    """One segmenter: cell, arm and seed."""

    cell: Cell
    arm: Arm
    seed: int

    @property
    def name(self) -> str:
        """As its files are named: ``f0-025-columnar-s0``."""
        return f"{self.cell.name}-{self.arm.name}-s{self.seed}"

    def segmenter(self, protocol: Protocol) -> SegmenterConfig:
        """Settings of its training; between arms only the augmentation differs."""
        return replace(protocol.segmenter, seed=self.seed, augmentation=self.arm.augmentation)

    def key(self, protocol: Protocol) -> str:
        """Changes with everything that decides its scores; number of folds, seeds and other cells do not."""
        synthetic = [protocol.generator, protocol.synthetic_share, SEED] if self.arm.sets else []
        return key_of(self.cell, self.arm.sets, self.arm.with_real, self.segmenter(protocol), *synthetic)


def parts_of(cells: tuple[Cell, ...], seeds: int) -> list[Part]:
    """All parts: seed by seed, so that the first results cover every cell; cell by cell; arm by arm."""
    return [Part(cell, arm, seed) for seed in range(seeds) for cell in cells for arm in ARMS]


def read_result(out: Path, name: str, key: str) -> dict[str, Any] | None:
    """The JSON of a part that was run; None without one, or if it was run otherwise.

    Args:
        name, key: see :class:`Part`.
    """
    path = result_path(out, name)
    if not path.is_file():
        return None
    found: dict[str, Any] = json.loads(path.read_text())
    return found if found["key"] == key else None


def result_path(out: Path, name: str) -> Path:
    """Where the JSON of a part lies."""
    return out / "parts" / f"{name}.json"


def run_part(pack: Pack, part: Part, data: CellData, protocol: Protocol, out: Path) -> dict[str, Any]:
    """Trains and scores one segmenter, and writes its JSON at the end; an interrupted training goes on.

    Only scoring opens ``pack``: training reads ``data``, the cell's own files.
    """
    key, started = part.key(protocol), time.monotonic()
    config = part.segmenter(protocol)
    source = source_of(part.arm, data, protocol.synthetic_share)
    checkpoint = train_segmenter(source, config, out / "segmenters" / f"{part.name}-{key}")
    segmenter = Segmenter.load(checkpoint)
    scores = score_fields(pack, part.cell.held_out, segmenter)
    result = {
        "key": key,
        "part": part.name,
        "fold": part.cell.fold,
        "fraction": part.cell.fraction,
        "arm": part.arm.name,
        "seed": part.seed,
        "trained_on_fields": list(part.cell.train),
        "source": source.identity,
        "steps": config.steps,
        "segmenter_sha256": segmenter.identity["sha256"],
        "seconds": round(time.monotonic() - started, 1),
        "scores": [score.to_json() for score in scores],
    }
    path = result_path(out, part.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, (json.dumps(result, indent=1) + "\n").encode())
    return result
