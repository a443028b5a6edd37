"""``msdm-train tune``: tries settings on the split val, keeps what each gave, and says which should be the default."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from msdm_engine.bundle.manifest import Manifest
from msdm_engine.bundle.reader import Bundle
from msdm_engine.engine import Engine
from msdm_engine.errors import InputError, RequestError
from msdm_engine.metrics.segmentation import dice
from msdm_engine.pairs import MAX_SIDE_PX, MIN_SIDE_PX
from msdm_train.data.crops import Crop, windows
from msdm_train.data.pack import Pack
from msdm_train.evaluation.context import Embed, Segment
from msdm_train.evaluation.distances import wasserstein2
from msdm_train.evaluation.evaluate import check_untouched
from msdm_train.evaluation.generate import Generator, evenly
from msdm_train.evaluation.sections import plain, write_json
from msdm_train.evaluation.tuning.candidate import (
    COORDINATES,
    QUICK_COORDINATES,
    RULE,
    Candidate,
    Coordinate,
    Measured,
    front,
)
from msdm_train.evaluation.tuning.plot import plot_front
from msdm_train.evaluation.tuning.search import Search, search
from msdm_train.files import file_sha256

#: Always: what is chosen by a split cannot be judged by it, and test is never chosen by.
SPLIT = "val"


@dataclass(frozen=True)
class TuneSettings:
    """Settings of ``msdm-train tune``.

    Args:
        bundle, data: folder of the bundle, packed data set.
        out: folder of the run; an interrupted one resumes here.
        side_px: side of the pictures, 16 to 4096.
        seed: of the noise, the same for every setting.
        quick: fewer windows and settings.
        threads: CPU threads of the engine; 0: one for each core.

    Raises:
        RequestError: a value out of range.
    """

    bundle: Path
    data: Path
    out: Path
    side_px: int = 128
    seed: int = 0
    quick: bool = False
    threads: int = 0

    def __post_init__(self) -> None:
        if not MIN_SIDE_PX <= self.side_px <= MAX_SIDE_PX:
            raise RequestError(f"size {self.side_px} px", note=f"{MIN_SIDE_PX} to {MAX_SIDE_PX}")

    @property
    def windows(self) -> int:
        """Most real windows, and as many pairs for each setting."""
        return 16 if self.quick else 64


def tune(
    settings: TuneSettings,
    embed: Embed,
    evaluator: Segment | None = None,
    *,
    coordinates: Sequence[Coordinate] | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Searches, and writes ``tuning.json`` and ``plots/front.png`` into ``settings.out``.

    Every setting generates the pairs of the same windows with the same noise. A setting that was measured before, by
    the same networks on the same data, is not measured again.

    Args:
        evaluator: None: fidelity is not measured, and settings are chosen by distance and cost alone.

    Returns:
        the content of ``tuning.json``.

    Raises:
        InputError: val has no window of that size, or the bundle was trained on a field of it.
        MsdmError: of bundle, engine and output.
    """
    pack, bundle = Pack(settings.data), Bundle.open(settings.bundle)
    check_untouched(pack, bundle, SPLIT)
    found = windows(pack, SPLIT, settings.side_px)
    if not found:
        raise InputError(f"the split '{SPLIT}' of {pack.info.name} has no window of {settings.side_px} px")
    crops = [found[i] for i in evenly(len(found), settings.windows)]
    start = Candidate(bundle.manifest.sampling, bundle.manifest.guidance)
    chosen_coordinates = coordinates or (QUICK_COORDINATES if settings.quick else COORDINATES)
    with Engine.open(bundle, threads=settings.threads) as engine:
        bench = Bench(settings, engine, crops, embed, evaluator, say)
        done = search(start, chosen_coordinates, bench.measure)
    report = report_of(settings, pack, bundle.manifest, bench, done)
    report["plot"] = plot_front(settings.out, done)
    write_json(settings.out / "tuning.json", report)
    return report


class Bench:
    """Measures settings, one after another, and keeps each result under ``OUT/settings``."""

    def __init__(
        self,
        settings: TuneSettings,
        engine: Engine,
        crops: Sequence[Crop],
        embed: Embed,
        evaluator: Segment | None,
        say: Callable[[str], None],
    ) -> None:
        self.settings, self.engine, self.crops = settings, engine, crops
        self.embed, self.evaluator, self.say = embed, evaluator, say
        self.identity = {
            "files_sha256": files_sha256(engine.bundle.manifest),
            "backend": engine.backend.identity,
            "data_sha256": file_sha256(settings.data),
            "split": SPLIT,
            "side_px": settings.side_px,
            "windows": len(crops),
            "seed": settings.seed,
            "encoder": embed.identity,
            "evaluator": evaluator.identity if evaluator else None,
        }
        self._real: np.ndarray | None = None

    def measure(self, candidate: Candidate) -> Measured:
        """Generates the pairs of a setting and compares them with the real windows."""
        told = json.dumps({**self.identity, **candidate.to_json()}, sort_keys=True)
        key = hashlib.sha256(told.encode()).hexdigest()
        path = self.settings.out / "settings" / f"{key[:16]}.json"
        if path.is_file():
            return Measured(**json.loads(path.read_text(encoding="utf-8"))["measured"])
        self.say(f"{candidate.text()} ({candidate.cost} runs of the U-Net a pair)")
        folder = self.settings.out / "generated"
        generator = Generator(
            self.engine, folder, lambda _: None, sampling=candidate.sampling, guidance=candidate.guidance
        )
        began = time.monotonic()
        samples = generator.set_of(key[:16], self.crops, [self.settings.seed])
        seconds = (time.monotonic() - began) / len(samples)
        if self._real is None:
            self._real = self.embed([crop.image for crop in self.crops])
        distance = wasserstein2(self._real, self.embed([s.image for s in samples])).value
        fidelity = None
        if self.evaluator is not None:
            found = self.evaluator([s.image for s in samples])
            fidelity = float(np.mean([dice(s.instances, f).value for s, f in zip(samples, found, strict=True)]))
        measured = Measured(distance, fidelity, round(seconds, 3))
        write_json(path, plain({**candidate.to_json(), "measured": asdict(measured)}))
        shutil.rmtree(folder, ignore_errors=True)
        self.say(f"  distance {distance:.4g}" + ("" if fidelity is None else f", fidelity {fidelity:.3f}"))
        return measured


def files_sha256(manifest: Manifest) -> str:
    """Identity of everything in a bundle but its manifest, so that storing a default does not change it."""
    told = {name: entry.sha256 for name, entry in manifest.files.items()}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def report_of(settings: TuneSettings, pack: Pack, manifest: Manifest, bench: Bench, done: Search) -> dict[str, Any]:
    """What goes into ``tuning.json``."""

    def told(candidate: Candidate) -> dict[str, Any]:
        return {"text": candidate.text(), **candidate.to_json(), **asdict(done.tried[candidate])}

    return plain(
        {
            "bundle": manifest.name,
            "data": pack.info.name,
            "quick": settings.quick,
            "protocol": {
                **bench.identity,
                "distance": "exact 2-Wasserstein distance between embeddings of the real windows of val and of the "
                "pairs made under their conditions with the same noise for every setting, unfiltered, equal n",
                "rule": RULE,
            },
            "start": told(done.start),
            "chosen": told(done.chosen),
            "path": {name: candidate.text() for name, candidate in done.path.items()},
            "front": [told(candidate) for candidate in front(done.tried)],
            "tried": [told(candidate) for candidate in done.tried],
        }
    )
