"""Histograms of every quantised input at every noise level, along whole trajectories; interrupted, it goes on.

Counts are integers in logarithmic bins: memory does not grow with the number of windows, and a calibration that was
interrupted ends with the same counts, and so with the same scales, to the bit.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from msdm_calibration.quantize.histogram import BINS, counts_of
from msdm_calibration.quantize.migrate import divided
from msdm_calibration.quantize.subject import Subject
from msdm_calibration.quantize.targets import Target
from msdm_calibration.trajectory import Visit
from msdm_engine.contract import DENOISER
from msdm_engine.errors import InputError, OutputError
from msdm_engine.output.png import write_atomically
from msdm_engine.pairs import PairRequest

#: Every which row and column of a feature map is counted; the parity changes with the step, so that all are.
STRIDE = 2


@dataclass(frozen=True)
class Feed:
    """A quantised input: a tensor, divided by a migration or not, and the targets that read it with one scale."""

    name: str
    tensor: str
    migration: np.ndarray | None
    targets: tuple[Target, ...]


def feeds_of(subject: Subject, migrations: Mapping[str, np.ndarray]) -> tuple[Feed, ...]:
    """Targets by what they read: those without migration share the tensor."""
    found: dict[str, list[Target]] = {}
    for target in subject.targets.found:
        name = f"{target.tensor} for {target.node}" if target.node in migrations else target.tensor
        found.setdefault(name, []).append(target)
    return tuple(
        Feed(name, targets[0].tensor, migrations.get(targets[0].node), tuple(targets))
        for name, targets in found.items()
    )


def collect(
    subject: Subject, feeds: tuple[Feed, ...], state: Path, say: Callable[[str], None] = lambda _: None
) -> dict[str, np.ndarray]:
    """Counts of each feed: [steps, BINS] int64.

    Args:
        state: file that is replaced after every batch; one of the same calibration is gone on with.

    Raises:
        InputError: the file is of another calibration, or damaged.
        OutputError: it cannot be written.
    """
    key = key_of(subject, feeds)
    steps = len(subject.sampling.table())
    counts, done = _load(state, key, feeds, steps)
    names = list(dict.fromkeys(feed.tensor for feed in feeds))
    inputs = {value.name for value in subject.model.graph.input}
    backend = subject.marked([name for name in names if name not in inputs])

    def see(visit: Visit) -> None:
        if visit.graph != DENOISER or visit.step is None:
            return
        given = visit.inputs | visit.more
        for feed in feeds:
            values = divided(feed.targets[0], given[feed.tensor], feed.migration)
            counts[feed.name][visit.step] += counts_of(_every(values, visit.step))

    for first, requests in _batches(subject, done):
        say(f"histograms: {first} of {len(subject.requests)} windows")
        subject.follow(backend, requests, see)
        _save(state, key, counts, first + len(requests))
    return counts


def _batches(subject: Subject, done: int) -> Iterator[tuple[int, tuple[PairRequest, ...]]]:
    for first in range(done, len(subject.requests), subject.batch):
        yield first, subject.requests[first : first + subject.batch]


def _every(values: np.ndarray, step: int) -> np.ndarray:
    if values.ndim != 4 or min(values.shape[2:]) < 2 * STRIDE:
        return values
    return values[:, :, step % STRIDE :: STRIDE, (step // STRIDE) % STRIDE :: STRIDE]


def key_of(subject: Subject, feeds: tuple[Feed, ...]) -> str:
    """Hash of everything that decides the counts."""
    digest = hashlib.sha256(subject.bundle.sha256.encode())
    digest.update(json.dumps([asdict(subject.sampling), subject.batch, subject.threads, STRIDE, BINS]).encode())
    for request in subject.requests:
        told = [request.seed, request.index, request.metadata.text(), asdict(request.colour), request.height_px]
        digest.update(json.dumps(told, default=str).encode())
        digest.update(b"" if request.instances is None else np.ascontiguousarray(request.instances).tobytes())
    for feed in feeds:
        digest.update(feed.name.encode() + (b"" if feed.migration is None else feed.migration.tobytes()))
    return digest.hexdigest()


def _load(state: Path, key: str, feeds: tuple[Feed, ...], steps: int) -> tuple[dict[str, np.ndarray], int]:
    counts = {feed.name: np.zeros((steps, BINS), np.int64) for feed in feeds}
    if not state.exists():
        return counts, 0
    try:
        with np.load(state) as stored:
            if str(stored["key"]) != key:
                raise InputError(
                    f"{state} is of another calibration",
                    note="bundle, windows, steps, batch, threads or migration differ",
                    hint="name another --state, or remove the file",
                )
            for i, feed in enumerate(feeds):
                counts[feed.name].reshape(-1)[stored[f"at_{i}"]] = stored[f"counts_{i}"]
            return counts, int(stored["done"])
    except (OSError, KeyError, ValueError, EOFError) as error:
        raise InputError(f"{state} cannot be read: {error}", hint="remove the file; it is made again") from error


def _save(state: Path, key: str, counts: dict[str, np.ndarray], done: int) -> None:
    held: dict[str, np.ndarray] = {"key": np.array(key), "done": np.array(done)}
    for i, values in enumerate(counts.values()):
        flat = values.reshape(-1)
        held[f"at_{i}"] = np.flatnonzero(flat).astype(np.int32)
        held[f"counts_{i}"] = flat[held[f"at_{i}"]]
    buffer = io.BytesIO()
    np.savez(buffer, **held)  # type: ignore[arg-type]  # its stub takes the names for its own arguments
    try:
        state.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(state, buffer.getvalue())
    except OSError as error:
        raise OutputError(
            f"{state} cannot be written: {error.strerror or error}", hint="name another --state"
        ) from error
