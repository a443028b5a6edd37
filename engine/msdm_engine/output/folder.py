"""The folder of a set: claimed by one process at a time, and cleared of what an interruption left behind."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from msdm_engine.errors import OutputError
from msdm_engine.output.png import write_atomically
from msdm_engine.output.records import KINDS, SET_FILE

try:
    import fcntl
except ImportError:  # Windows; there two processes in one folder are the caller's care
    fcntl = None  # type: ignore[assignment]

FOLDERS = tuple(f"{kind}s" for kind in KINDS)


class Claim:
    """A lock on ``set.json``, which the operating system lets go when the process ends, however it ends."""

    def __init__(self, folder: Path) -> None:
        self._file: IO[bytes] = (folder / SET_FILE).open("rb")
        if fcntl is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            raise OutputError(
                f"output {folder} is being written by another process", hint="wait for it, or choose another --out"
            ) from error
        except OSError:  # a file system without locks
            return

    def release(self) -> None:
        """Lets the folder go."""
        self._file.close()


def is_begun(folder: Path) -> bool:
    """Whether there is something to resume: not where the folder is empty or was left before ``set.json``."""
    with _reported(folder):
        if not folder.exists():
            return False
        if not folder.is_dir():
            raise OutputError(f"output {folder} is not a folder", hint="choose another --out")
        if (folder / SET_FILE).exists():
            return True
        return not all(_left_before_the_start(path) for path in folder.iterdir())


def _left_before_the_start(path: Path) -> bool:
    return path.name == f".{SET_FILE}.tmp" or (path.name in FOLDERS and path.is_dir() and not any(path.iterdir()))


def claim_new(folder: Path, header: bytes, *, resume: bool = False) -> Claim:
    """Makes the folder with ``set.json`` and empty ``images/`` and ``masks/``, and claims it.

    Args:
        resume: the folder may hold these folders already, empty.

    Raises:
        OutputError: it exists and is not empty, or cannot be written.
    """
    with _reported(folder):
        if not resume and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise OutputError(
                f"output {folder} exists and is not empty", hint="choose another --out, or go on with --resume"
            )
        for name in FOLDERS:
            (folder / name).mkdir(parents=True, exist_ok=resume)
        write_atomically(folder / SET_FILE, header)
        return Claim(folder)


def claim_old(folder: Path) -> Claim:
    """Claims the folder of an interrupted set and removes the files that were being written."""
    with _reported(folder):
        claim = Claim(folder)
        try:
            for name in FOLDERS:
                (folder / name).mkdir(exist_ok=True)
            for place in (folder, *(folder / name for name in FOLDERS)):
                for path in place.glob(".*.tmp"):
                    path.unlink()
        except BaseException:
            claim.release()
            raise
        return claim


@contextlib.contextmanager
def _reported(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"output {folder} cannot be written: {error.strerror or error}",
            hint="check the free space and the permissions",
        ) from error
