"""Runs the parts of the experiment that are missing, within the bounds of one call."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msdm_engine.errors import InputError, RequestError
from msdm_engine.output.png import write_atomically
from msdm_train.data.pack import Pack
from msdm_train.evaluation.usefulness.config import Protocol
from msdm_train.evaluation.usefulness.folds import Cell, cells_of
from msdm_train.evaluation.usefulness.parts import Part, parts_of, read_result, run_part
from msdm_train.evaluation.usefulness.synthetic import CellData, prepare_cell
from msdm_train.evaluation.usefulness.words import protocol_in_words
from msdm_train.files import file_sha256

EXPERIMENT_FILE = "experiment.json"


@dataclass(frozen=True)
class Limits:
    """Bounds of one call; None: none.

    Args:
        parts: begun at most.
        minutes: after which no further part is begun. A part that runs, or the generator that it needs, ends first.
    """

    parts: int | None = None
    minutes: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("parts", self.parts), ("limit_minutes", self.minutes)):
            if value is not None and not value > 0:
                raise RequestError(f"{name} is {value}", note="above 0")


def run_experiment(
    pack_path: Path, out: Path, protocol: Protocol, limits: Limits, say: Callable[[str], None]
) -> list[Part]:
    """Runs what is missing, part after part, and returns what is missing still.

    A killed call loses at most what its running part did since the last checkpoint of the network it trained.

    Raises:
        InputError: the data cannot be dealt into such folds.
        RequestError: ``out`` holds an experiment with other settings or other data.
    """
    pack = Pack(pack_path)
    cells = cells_of(pack, protocol.folds, protocol.fractions)
    parts = parts_of(cells, protocol.seeds)
    _write_experiment(out, protocol, pack, cells, {part.name: part.key(protocol) for part in parts})
    missing = [part for part in parts if read_result(out, part.name, part.key(protocol)) is None]
    say(f"{len(parts) - len(missing)} of {len(parts)} parts are there")
    started, opened = time.monotonic(), _Cells(pack, protocol, out, say)
    for number, part in enumerate(list(missing)):
        spent_min = (time.monotonic() - started) / 60
        if (limits.parts is not None and number >= limits.parts) or (
            limits.minutes is not None and spent_min >= limits.minutes
        ):
            break
        result = run_part(pack, part, opened.data(part.cell), protocol, out)
        missing.remove(part)
        say(f"{part.name}: {_in_words(result)}, {result['seconds']:.0f} s; {len(missing)} parts left")
    return missing


class _Cells:
    """Keeps the data of the cell that is being worked on."""

    def __init__(self, pack: Pack, protocol: Protocol, out: Path, say: Callable[[str], None]) -> None:
        self._pack, self._protocol, self._out, self._say = pack, protocol, out, say
        self._open: tuple[str, CellData] | None = None

    def data(self, cell: Cell) -> CellData:
        if self._open is None or self._open[0] != cell.name:
            folder = self._out / "cells" / cell.name
            self._open = cell.name, prepare_cell(self._pack, cell, self._protocol.generator, folder, self._say)
        return self._open[1]


def _in_words(result: dict[str, Any]) -> str:
    return ", ".join(f"{s['field']} {s['nuclei']} PQ {s['pq']:.3f}" for s in result["scores"])


def _write_experiment(
    out: Path, protocol: Protocol, pack: Pack, cells: tuple[Cell, ...], parts: dict[str, str]
) -> None:
    """Writes ``experiment.json``, or checks the one that is there: only the number of seeds may change."""
    info = pack.info
    record = {
        "text": protocol_in_words(protocol),
        "settings": protocol.to_json(),
        "data": {"name": info.name, "licence": info.licence, "source": info.source, "sha256": file_sha256(pack.path)},
        "cells": [{"cell": cell.name, "train": list(cell.train), "held_out": list(cell.held_out)} for cell in cells],
        "parts": parts,
    }
    path = out / EXPERIMENT_FILE
    if path.is_file():
        before, now = read_experiment(out), json.loads(json.dumps(record))
        same = {**before["settings"], "seeds": protocol.seeds}
        changed = [name for name, value in now["settings"].items() if same.get(name) != value]
        changed += [name for name in ("data", "cells") if before[name] != now[name] and not changed]
        if changed:
            raise RequestError(
                f"{out} holds an experiment with other settings: {', '.join(changed)}",
                note=f"its settings are in {path}; only the number of seeds may change",
                hint="use the same settings to go on, or another --out",
            )
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(path, (json.dumps(record, indent=1) + "\n").encode())


def read_experiment(out: Path) -> dict[str, Any]:
    """``experiment.json``: ``text``, ``settings``, ``data``, ``cells`` and ``parts``, each part's key by its name.

    Keys are those that the parts were run with, so that a report does not depend on the code that writes it.

    Raises:
        InputError: there is none, or its file is damaged.
    """
    path = out / EXPERIMENT_FILE
    try:
        record: dict[str, Any] = json.loads(path.read_text())
        return {name: record[name] for name in ("text", "settings", "data", "cells", "parts")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{out} holds no usefulness experiment: {error}", hint="run `msdm-train usefulness PACK --out` that folder"
        ) from error
