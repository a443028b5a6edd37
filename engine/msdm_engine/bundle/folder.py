"""Writing bundles, for every stage: a new one whole or not at all; files added so that one is whole at every moment."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from msdm_engine.bundle.manifest import MANIFEST, FileEntry, Manifest, Variant
from msdm_engine.bundle.reader import Bundle, reference_bundle
from msdm_engine.errors import OutputError, RequestError
from msdm_engine.output.png import write_atomically

try:
    import fcntl
except ImportError:  # Windows; there two processes in one bundle are the caller's care
    fcntl = None  # type: ignore[assignment]


def entry_of(data: bytes) -> FileEntry:
    """Size and hash of a file's bytes."""
    return FileEntry(len(data), hashlib.sha256(data).hexdigest())


def hashed_name(stem: str, data: bytes, suffix: str) -> str:
    """A name that changes with the content, so that a file which the manifest lists is never overwritten."""
    return f"{stem}-{hashlib.sha256(data).hexdigest()[:8]}{suffix}"


def check_may_change(folder: Path, what: str) -> None:
    """The installed package stays as it was installed.

    Raises:
        RequestError: the bundle that ships with msdm.
    """
    if folder.resolve() == reference_bundle().resolve():
        raise RequestError(
            f"{what} for the bundle that ships with msdm",
            note="the installed package stays as it was installed",
            hint="work on a copy: add --out FOLDER",
        )


def with_plans(files: Mapping[str, bytes], bundle: Bundle, manifest: Manifest) -> dict[str, bytes]:
    """These files, and the bundle's plans that the manifest of its new copy still lists, verified.

    Raises:
        BundleError: a plan is missing or damaged.
    """
    return {**files, **{spec.file: bundle.plan_bytes(name) for name, spec in manifest.plans.items()}}


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Keeps other writers out of the folder; the operating system lets it go when the process ends, however it ends.

    Raises:
        OutputError: another process holds it.
    """
    if fcntl is None:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputError(
                f"{folder} is being written by another process", hint="wait for it, or choose another --out"
            ) from error
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        os.close(descriptor)


def write_new(out: Path, manifest: Manifest, files: Mapping[str, bytes]) -> None:
    """Writes a bundle beside its final name and moves the folder into place; an existing bundle is replaced.

    Interrupted between the two moves, the old bundle is put back, at the latest by the next call.

    Args:
        files: all that the manifest lists, plans included (:func:`with_plans`).

    Raises:
        OutputError: ``out`` exists and is no bundle, another process writes it, or the disk is full.
    """
    if out.exists() and not (out / MANIFEST).is_file():
        raise OutputError(f"{out} exists and is not a bundle", hint="choose another --out")
    temporary, old = (out.with_name(f".{out.name}.{suffix}") for suffix in ("tmp", "old"))
    try:
        temporary.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as claims:
            claims.enter_context(claimed(temporary))
            _put_back(old, out)
            if out.exists():
                claims.enter_context(claimed(out))
            _empty(temporary)
            shutil.rmtree(old, ignore_errors=True)
            try:
                for name, data in files.items():
                    path = temporary / name
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(data)
                (temporary / MANIFEST).write_text(manifest.to_json())
                if out.exists():
                    os.replace(out, old)
                os.replace(temporary, out)
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                _put_back(old, out)
                raise
            shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise OutputError(
            f"bundle {out} cannot be written: {error.strerror or error}",
            hint="check the free space and the permissions",
        ) from error


def _put_back(old: Path, out: Path) -> None:
    """Ends what an interruption left between the two moves of :func:`write_new`."""
    if old.exists() and not out.exists():
        os.replace(old, out)


def add_to_bundle(folder: Path, files: Mapping[str, bytes], change: Callable[[Manifest], Manifest]) -> Manifest:
    """Adds files to a bundle: first the files, then the manifest, then files that it lists no more are removed.

    Interrupted anywhere, the bundle is the old one or the new one.

    Args:
        files: new files by name (with :func:`hashed_name`); the manifest gets their size and hash.
        change: the manifest as it is now -> the manifest with what the files are for.

    Raises:
        OutputError: another process writes the bundle, the disk is full, or the folder is read-only.
    """
    try:
        with claimed(folder):
            old = Manifest.from_json((folder / MANIFEST).read_text())
            changed = change(replace(old, files=old.files | {name: entry_of(data) for name, data in files.items()}))
            _add(folder, files)
            write_atomically(folder / MANIFEST, changed.to_json().encode())
            for name in set(old.files) - set(changed.files):
                (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(
            f"bundle {folder} cannot be written: {error.strerror or error}",
            hint="check the free space and the permissions, or write another bundle with --out",
        ) from error
    return changed


def _add(folder: Path, files: Mapping[str, bytes]) -> None:
    """All files or none."""
    added: list[Path] = []
    try:
        for name, data in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                added.append(path)
            write_atomically(path, data)
    except BaseException:
        for path in added:
            path.unlink(missing_ok=True)
        raise


def with_variants(manifest: Manifest, precision: str, variants: Mapping[str, Variant]) -> Manifest:
    """The manifest with these variants, one for each graph, in place of those of the same precision.

    Files that nothing names any more leave it; precisions may share a file.
    """
    graphs = {
        name: replace(spec, variants={**spec.variants, precision: variants[name]})
        for name, spec in manifest.graphs.items()
    }
    old = {spec.variants[precision].file for spec in manifest.graphs.values() if precision in spec.variants}
    used = {spec.file for spec in graphs.values()}
    used |= {variant.file for spec in graphs.values() for variant in spec.variants.values()}
    files = {name: entry for name, entry in manifest.files.items() if name in used or name not in old}
    return replace(manifest, graphs=graphs, files=files)


def _empty(folder: Path) -> None:
    """Removes what an interrupted run left behind."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
