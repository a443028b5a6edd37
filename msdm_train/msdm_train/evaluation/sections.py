"""The sections of the protocol: in which order they run, and what is kept of each so that none runs twice."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from msdm_engine.errors import InputError, OutputError, RequestError, nearest
from msdm_engine.output.png import write_atomically
from msdm_train.evaluation.context import Context

Run = Callable[[Context], dict[str, Any]]


@dataclass(frozen=True)
class Section:
    """One section.

    Args:
        title: as the report shows it.
        protocol: version of what it measures; a result of another version is measured again.
        run: reads the context and returns what goes into ``report.json``.
    """

    title: str
    protocol: int
    run: Run


def _fidelity(context: Context) -> dict[str, Any]:
    from msdm_train.evaluation.fidelity import run

    return run(context)


def _closeness(context: Context) -> dict[str, Any]:
    from msdm_train.evaluation.closeness import run

    return run(context)


def _memorisation(context: Context) -> dict[str, Any]:
    from msdm_train.evaluation.memorisation import run

    return run(context)


def _control(context: Context) -> dict[str, Any]:
    from msdm_train.evaluation.control import run

    return run(context)


def _usefulness(context: Context) -> dict[str, Any]:
    from msdm_train.evaluation.usefulness.section import run

    return run(context)


#: In the order in which they run and are reported. A module is imported when its section runs.
SECTIONS: dict[str, Section] = {
    "fidelity": Section("Mask fidelity: does the picture show the mask", 1, _fidelity),
    "closeness": Section("Closeness to real, under matching conditions", 2, _closeness),
    "memorisation": Section("Memorisation: is it a train picture", 1, _memorisation),
    "control": Section("Control: what was asked against what came", 2, _control),
    "usefulness": Section("Usefulness: do synthetic columnar cells help a segmenter", 1, _usefulness),
}


def sections_named(names: Sequence[str], among: Mapping[str, Section]) -> dict[str, Section]:
    """The sections of these names, in the protocol's order; all for none.

    Raises:
        RequestError: an unknown name.
    """
    for name in names:
        if name not in among:
            raise RequestError(f"unknown section '{name}'", note=nearest(name, among))
    return {name: section for name, section in among.items() if not names or name in names}


@dataclass(frozen=True)
class Outcome:
    """What became of a section.

    Args:
        status: ``done``, or ``refused`` where it cannot be measured on these data.
        seconds: of the run that measured it, on one machine: a hint, not a benchmark.
        result: of a section that is done.
        reason: why it is refused: what failed, what is legal, what to do next.
    """

    name: str
    status: str
    seconds: float
    result: dict[str, Any]
    reason: str = ""


def section_key(name: str, section: Section, identity: Mapping[str, Any]) -> str:
    """Identity of a result: the section, its protocol, and everything that decides its numbers."""
    told = {"section": name, "protocol": section.protocol, **identity}
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()


def run_sections(
    context: Context, identity: Mapping[str, Any], sections: Mapping[str, Section] = SECTIONS
) -> list[Outcome]:
    """Runs each section that has no result of the same key under ``context.out / sections``.

    A section that raises InputError or RequestError cannot be measured on what was given: it is refused with the
    error as the reason, the others go on, and the next run tries it again. Any other error ends the run; what is done
    stays done.

    Args:
        identity: everything that decides the numbers: hashes of bundle, data, encoder, evaluator; settings.

    Raises:
        OutputError: a result cannot be written.
        MsdmError: of the engine.
    """
    return [_outcome(name, section, context, identity) for name, section in sections.items()]


def _outcome(name: str, section: Section, context: Context, identity: Mapping[str, Any]) -> Outcome:
    path = context.out / "sections" / f"{name}.json"
    key = section_key(name, section, identity)
    kept = _read(path, key)
    if kept is not None:
        context.say(f"{name}: measured before")
        return kept
    context.say(f"{name}: measuring")
    began = time.monotonic()
    status, result, reason = "done", {}, ""
    try:
        result = plain(section.run(context))
    except (InputError, RequestError) as error:
        status, reason = "refused", error.render()
        context.say(f"{name}: refused: {error.what}")
    outcome = Outcome(name, status, round(time.monotonic() - began, 2), result, reason)
    write_json(path, {"key": key, **asdict(outcome)})
    return outcome


def _read(path: Path, key: str) -> Outcome | None:
    """A result that was measured under the same key; None if there is none."""
    if not path.is_file():
        return None
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(
            f"{path} is not JSON: {error}", hint="delete it; the section is then measured again"
        ) from error
    if kept.pop("key", None) != key or kept["status"] != "done":
        return None
    return Outcome(**kept)


def plain(value: Any) -> Any:
    """As JSON: numpy scalars and arrays become numbers and lists, what is not finite becomes null."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: Path, value: Any) -> None:
    """Writes JSON whole or not at all.

    Raises:
        OutputError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error
    write_atomically(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())
