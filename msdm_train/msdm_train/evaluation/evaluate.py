"""``msdm-train evaluate``: everything that the sections need is made, they run in order, the report is written."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from msdm_engine.bundle.reader import Bundle
from msdm_engine.engine import Engine
from msdm_engine.errors import InputError
from msdm_train.data.crops import Crop, windows
from msdm_train.data.pack import Pack
from msdm_train.evaluation.context import Change, Context, Embed, Segment
from msdm_train.evaluation.generate import Generator, evenly
from msdm_train.evaluation.networks import open_evaluator
from msdm_train.evaluation.report import local_folder, write_report
from msdm_train.evaluation.runs_on_test import check_test_run, log_test_run, logged_here, mark_logged
from msdm_train.evaluation.samples import Sample
from msdm_train.evaluation.sections import SECTIONS, Outcome, Section, run_sections, sections_named, write_json
from msdm_train.evaluation.settings import EvaluationSettings
from msdm_train.files import file_sha256

Say = Callable[[str], None]


def evaluate(
    settings: EvaluationSettings,
    embed: Embed,
    evaluator: Segment | None = None,
    *,
    test_log: Path | None = None,
    again: str = "",
    sections: Mapping[str, Section] | None = None,
    say: Say = lambda _: None,
) -> dict[str, Any]:
    """Measures a bundle on a split and writes ``report.json`` into ``settings.out``.

    What was measured or generated before under the same key is not made again.

    Args:
        evaluator: None: the one that the settings name.
        sections: None: all.
        test_log, again: see :func:`msdm_train.evaluation.runs_on_test.check_test_run`; for the split test.

    Returns:
        the report, as in ``report.json``.

    Raises:
        InputError: no window of the split, or the bundle was trained on a field of it.
        MsdmError: of bundle, engine and output.
    """
    began = time.monotonic()
    pack, bundle = Pack(settings.data), Bundle.open(settings.bundle)
    check_untouched(pack, bundle, settings.split)
    evaluator = evaluator or open_evaluator(settings.evaluator, pack, settings.split, bundle.manifest)
    real, train = chosen_windows(pack, settings)
    local_folder(settings.out)
    with Engine.open(bundle, threads=settings.threads, precision=settings.precision) as engine:
        generator = Generator(engine, settings.out / "generated", say)
        identity = identity_of(settings, generator, embed, evaluator)
        if settings.split == "test":
            log_look(settings, pack, bundle, identity, test_log, again)
        generating = time.monotonic()
        context = context_of(settings, pack, real, train, generator, embed, evaluator, say)
        generated = time.monotonic()
        outcomes = run_sections(
            context, identity, sections_named(settings.only, SECTIONS) if sections is None else sections
        )
    report = report_of(settings, pack, bundle, context, identity, outcomes)
    # Of this run: what was made or measured before took no time.
    report["seconds"] = {
        "generating": round(generated - generating, 2),
        "all": round(time.monotonic() - began, 2),
    }
    write_json(settings.out / "report.json", report)
    write_report(context, report)
    return report


def log_look(
    settings: EvaluationSettings,
    pack: Pack,
    bundle: Bundle,
    identity: Mapping[str, Any],
    test_log: Path | None,
    again: str,
) -> None:
    """Writes a look at the split test down before it happens, once for each report; refuses what may not happen.

    Raises:
        RequestError, InputError, OutputError: see :mod:`msdm_train.evaluation.runs_on_test`.
    """
    if logged_here(settings.out, identity):
        return
    log = check_test_run(test_log, bundle.sha256, again)
    log_test_run(
        log,
        date=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        name=bundle.manifest.name,
        bundle_sha256=bundle.sha256,
        data=pack.info.name,
        side_px=settings.side_px,
        again=again,
    )
    mark_logged(settings.out, identity)


def check_untouched(pack: Pack, bundle: Bundle, split: str) -> None:
    """Raises InputError if the bundle was trained on a field that is to judge it."""
    data = bundle.manifest.data
    seen = set(data.get("trained_on_fields", ())) if data["name"] == pack.info.name else set()
    touched = sorted(seen & {field.id for field in pack.split(split)})
    if touched:
        raise InputError(
            f"bundle {bundle.manifest.name} was trained on field(s) {', '.join(touched)} of the split '{split}'",
            note="a generator is judged on fields that it never saw",
            hint="choose another split, or train on the pack's own train split",
        )


def chosen_windows(pack: Pack, settings: EvaluationSettings) -> tuple[list[Crop], list[Crop]]:
    """Disjoint windows of the split, evenly spaced where there are too many, and all of train.

    Raises:
        InputError: the split has none of that size.
    """
    found = windows(pack, settings.split, settings.side_px)
    if not found:
        raise InputError(
            f"the split '{settings.split}' of {pack.info.name} has no window of {settings.side_px} px",
            note=f"its {len(pack.split(settings.split))} fields are smaller, or it has none",
            hint="ask for smaller ones with --size",
        )
    real = [found[i] for i in evenly(len(found), settings.real_windows)]
    return real, windows(pack, "train", settings.side_px)


def context_of(
    settings: EvaluationSettings,
    pack: Pack,
    real: list[Crop],
    train: list[Crop],
    generator: Generator,
    embed: Embed,
    evaluator: Segment,
    say: Say,
) -> Context:
    """Generates what every section reads, and offers to generate more."""

    def make(name: str, change: Change) -> list[Sample]:
        return generator.set_of(name, real, [settings.seed], change)

    seeds = range(settings.seed, settings.seed + settings.seeds_used)
    picks = train_picks(train, settings)
    of_train = generator.set_of("generated-train", [train[i] for i in picks], [settings.seed]) if picks else []
    return Context(
        out=settings.out,
        pack=pack,
        split=settings.split,
        side_px=settings.side_px,
        quick=settings.quick,
        seed=settings.seed,
        real=tuple(real),
        train=tuple(train),
        generated=tuple(generator.set_of("generated", real, seeds)),
        make=make,
        embed=embed,
        evaluator=evaluator,
        say=say,
        generated_train=tuple(replace(sample, crop=picks[sample.crop]) for sample in of_train),
        usefulness=settings.usefulness,
    )


def train_picks(train: list[Crop], settings: EvaluationSettings) -> list[int]:
    """Numbers of a seeded sample of the windows of train, ascending."""
    if len(train) <= settings.train_windows:
        return list(range(len(train)))
    rng = np.random.default_rng(settings.seed)
    return sorted(rng.choice(len(train), settings.train_windows, replace=False).tolist())


def identity_of(settings: EvaluationSettings, generator: Generator, embed: Embed, evaluator: Segment) -> dict[str, Any]:
    """Everything that decides the numbers of a section; no path, for a moved file is the same file."""
    return {
        "generator": generator.identity,
        "data_sha256": file_sha256(settings.data),
        "split": settings.split,
        "side_px": settings.side_px,
        "seeds": settings.seeds_used,
        "seed": settings.seed,
        "quick": settings.quick,
        "encoder": embed.identity,
        "evaluator": evaluator.identity,
        "usefulness_sha256": folder_sha256(settings.usefulness),
    }


def folder_sha256(folder: Path | None) -> str | None:
    """SHA-256 over names and contents of the JSON files of a folder; None for none."""
    if folder is None:
        return None
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.json")):
        digest.update(f"{path.relative_to(folder)}\0{file_sha256(path)}\n".encode())
    return digest.hexdigest()


def report_of(
    settings: EvaluationSettings,
    pack: Pack,
    bundle: Bundle,
    context: Context,
    identity: Mapping[str, Any],
    outcomes: list[Outcome],
) -> dict[str, Any]:
    """What goes into ``report.json``."""
    manifest = bundle.manifest
    scored = {crop.field for crop in context.real}
    return {
        "bundle": {
            "name": manifest.name,
            "sha256": bundle.sha256,
            "training_steps": manifest.training.get("steps"),
            # Scores on the split that a default was chosen by are too good.
            "sampling_chosen_on": manifest.training.get("tuning", {}).get("protocol", {}).get("split"),
        },
        "data": {"name": pack.info.name, "licence": pack.info.licence, "source": pack.info.source},
        "protocol": {
            **identity,
            "real_windows": len(context.real),
            "fields": sorted(scored),
            "fields_too_small": sorted({field.id for field in pack.split(settings.split)} - scored),
            "train_windows": len(context.train),
            "generated_pairs": len(context.generated),
            "filtered": False,
        },
        "sections": {
            outcome.name: {
                "status": outcome.status,
                "seconds": outcome.seconds,
                **({"reason": outcome.reason} if outcome.reason else {"result": outcome.result}),
            }
            for outcome in outcomes
        },
    }
