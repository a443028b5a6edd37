"""Plans and the manifest of a bundle on disk: one build at a time, each plan whole or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from msdm_engine.bundle.folder import check_may_change, entry_of, write_new
from msdm_engine.bundle.manifest import MANIFEST, Manifest
from msdm_engine.bundle.plan_spec import PLAN_FOLDER, PlanSpec
from msdm_engine.bundle.reader import Bundle
from msdm_engine.errors import BundleError, OutputError
from msdm_engine.output.png import write_atomically


def bundle_to_build_in(bundle: Path | None, out: Path | None) -> Path:
    """The folder that plans go into: the bundle itself, or a copy of it at ``out``, made or gone on with.

    Args:
        bundle: None is the reference bundle, which plans never go into: it ships with msdm.

    Raises:
        RequestError: the bundle that ships with msdm, without ``out``.
        OutputError: ``out`` holds something else, or cannot be written.
    """
    source = Bundle.open(bundle)
    if out is None:
        check_may_change(source.folder, "plans")
        return source.folder
    if (out / MANIFEST).is_file():
        if replace(Bundle.open(out).manifest, plans={}) != replace(source.manifest, plans={}):
            raise OutputError(
                f"{out} is another bundle than {source.folder}", hint="choose another --out, or remove it"
            )
        return out
    write_new(out, replace(source.manifest, plans={}), source.contents)
    return out


def add_plan(folder: Path, name: str, spec: PlanSpec, data: bytes) -> PlanSpec:
    """Writes a plan and enters it in the manifest; the caller holds the folder, see :mod:`msdm_engine.bundle.folder`.

    The plan comes first: a manifest never names what is not there. An interruption between the two leaves a file that
    the manifest does not name, or names by an older hash and so refuses; the next build of it replaces either.

    Returns:
        the entry as written, with size and hash.

    Raises:
        OutputError: the disk is full or the folder cannot be written; no file is written in part.
    """
    entry = replace(spec, size=len(data), sha256=entry_of(data).sha256)
    with _reported(folder, len(data)):
        (folder / PLAN_FOLDER).mkdir(exist_ok=True)
        write_atomically(folder / spec.file, data)
        manifest = Manifest.from_json(
            (folder / MANIFEST).read_bytes().decode()
        )  # not the whole bundle: it was verified before
        updated = replace(manifest, plans={**manifest.plans, name: entry})
        write_atomically(folder / MANIFEST, updated.to_json().encode())
    return entry


def is_built(bundle: Bundle, name: str, spec: PlanSpec) -> bool:
    """Whether the bundle holds this plan, made from equal inputs, with the bytes that its manifest says."""
    there = bundle.manifest.plans.get(name)
    if there is None or not there.made_alike(spec):
        return False
    try:
        bundle.plan_bytes(name)
    except BundleError:  # missing or damaged: it is built again
        return False
    return True


@contextlib.contextmanager
def _reported(folder: Path, needed: int = 0) -> Iterator[None]:
    try:
        yield
    except (OSError, OutputError) as error:
        problem = error.what if isinstance(error, OutputError) else f"{folder} cannot be written: {error.strerror}"
        raise OutputError(
            problem,
            note=f"the plan has {needed / 2**20:.1f} MiB; plans finished before are whole" if needed else None,
            hint="free some space or check the permissions, then run the same command: it goes on where it stopped",
        ) from error
