"""Writes a tuning's choice into the bundle that it was made for, as its default, with the measured front beside it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from msdm_engine.bundle.manifest import MANIFEST
from msdm_engine.bundle.reader import Bundle
from msdm_engine.errors import BundleError, InputError
from msdm_engine.output.png import write_atomically
from msdm_engine.sampling.guidance import Guidance
from msdm_train.evaluation.tuning.tune import files_sha256


def read_tuning(path: Path) -> dict[str, Any]:
    """Reads a ``tuning.json``.

    Raises:
        InputError: it is missing or not one.
    """
    try:
        tuning = json.loads(path.read_text(encoding="utf-8"))
        tuning["chosen"]["sampling"], tuning["chosen"]["guidance"], tuning["protocol"]["files_sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is no tuning: {error}", hint="make one with `msdm-train tune`") from error
    return dict(tuning)


def store_tuning(folder: Path, tuning: dict[str, Any]) -> Bundle:
    """Makes the chosen setting the default of the bundle in ``folder``; size and batch stay those of the bundle.

    The manifest is replaced whole; the hashes of all files stay, and the SHA-256 of the bundle changes with it.

    Returns:
        the bundle, opened and verified.

    Raises:
        BundleError: the bundle is damaged, or not the one that was tuned.
        OutputError: the manifest cannot be written.
    """
    bundle = Bundle.open(folder)
    manifest = bundle.manifest
    if files_sha256(manifest) != tuning["protocol"]["files_sha256"]:
        raise BundleError(
            f"bundle {manifest.name} is not the one that was tuned",
            note=f"the tuning was made for {tuning['bundle']}, with other files",
            hint="tune this bundle",
        )
    chosen = tuning["chosen"]
    kept = {name: value for name, value in chosen["sampling"].items() if name not in ("size_px", "batch")}
    guidance = Guidance(**{name: value for name, value in chosen["guidance"].items() if value is not None})
    record = {name: tuning[name] for name in ("data", "quick", "protocol", "start", "chosen", "front")}
    changed = replace(
        manifest,
        sampling=replace(manifest.sampling, **kept),
        guidance=guidance,
        training={**manifest.training, "tuning": record},
    )
    write_atomically(folder / MANIFEST, changed.to_json().encode())
    return Bundle.open(folder)
