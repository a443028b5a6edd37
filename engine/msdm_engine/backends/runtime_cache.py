"""Kernels that TensorRT for RTX compiled for a GPU, kept from process to process.

One file for each plan, below a folder for each version, GPU and driver. The runtime checks a file against all of these
itself and refuses what does not fit; it is then compiled anew and replaced. ``MSDM_CACHE`` names the folder.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from msdm_engine.bundle.plan_spec import PlanSpec
from msdm_engine.errors import OutputError
from msdm_engine.output.png import write_atomically

VARIABLE = "MSDM_CACHE"


def cache_folder() -> Path:
    """``MSDM_CACHE``, else ``msdm`` in the user's folder for caches."""
    if named := os.environ.get(VARIABLE):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "msdm"


def cache_file(folder: Path, plan: PlanSpec, device: dict[str, str]) -> Path:
    """Where the kernels of a plan on a device are kept."""
    words = "-".join((device["name"], device["capability"], "cuda", device["driver"]))
    place = re.sub(r"[^a-z0-9_.]+", "-", words.lower())
    return folder / plan.backend / plan.version / place / f"{plan.sha256[:32]}.cache"


def read_cache(path: Path) -> bytes:
    """What is kept; empty where there is nothing yet.

    Raises:
        OutputError: it is there and cannot be read.
    """
    try:
        return path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise _failed(path, error.strerror or str(error)) from error


def write_cache(path: Path, data: bytes) -> None:
    """Whole or not at all: another process may read it at the same time.

    Raises:
        OutputError: the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        own = path.with_name(f"{path.name}.{os.getpid()}")  # two processes must not write one temporary file
        write_atomically(own, data)
        os.replace(own, path)
    except OSError as error:
        raise _failed(path, error.strerror or str(error)) from error
    except OutputError as error:
        raise _failed(path, error.what) from error


def _failed(path: Path, reason: str) -> OutputError:
    return OutputError(
        f"the cache of compiled kernels {path} cannot be used: {reason}",
        hint=f"set {VARIABLE} to a folder that can be written",
    )
