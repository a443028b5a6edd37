"""Opening a bundle: every file is read once, checked against its hash, and only then used."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path, PurePosixPath

from msdm_engine.contract import CONDITIONER, DENOISER, TEXT_ENCODER
from msdm_engine.errors import BundleError
from msdm_engine.manifest import MANIFEST, Manifest

REQUIRED_GRAPHS = (TEXT_ENCODER, CONDITIONER, DENOISER)
TOKENIZER = "tokenizer.json"
MAX_FILE_BYTES = 8 * 2**30
MAX_MANIFEST_BYTES = 16 * 2**20


def reference_bundle() -> Path:
    """The bundle that ships with msdm."""
    return Path(str(resources.files("msdm_engine"))) / "bundles" / "reference"


@dataclass(frozen=True)
class Bundle:
    """A verified bundle.

    Args:
        folder: where it lies.
        manifest: what it says of itself.
        sha256: hash of its manifest, which holds the hashes of all files: the identity of the bundle.
        graphs: verified bytes of each graph.
    """

    folder: Path
    manifest: Manifest
    sha256: str
    graphs: dict[str, bytes]

    @staticmethod
    def open(folder: Path | str | None = None) -> Bundle:
        """Reads and verifies a bundle; None is the reference bundle.

        Raises:
            BundleError: no manifest, an unknown format, a file that is missing, of another size or hash, or
                outside the folder, or a graph that is missing.
        """
        folder = reference_bundle() if folder is None else Path(folder)
        path = folder / MANIFEST
        try:
            if path.stat().st_size > MAX_MANIFEST_BYTES:
                raise BundleError(f"{path} is larger than {MAX_MANIFEST_BYTES} bytes")
            text = path.read_bytes()
        except OSError as error:
            raise BundleError(
                f"{folder} is not a bundle: {MANIFEST} cannot be read ({error.strerror})",
                hint="name the folder that `msdm-export onnx` wrote, or leave --bundle out for the reference bundle",
            ) from error
        try:
            manifest = Manifest.from_json(text.decode())
        except UnicodeDecodeError as error:
            raise BundleError(f"{path} is not UTF-8 text: {error}", hint="export the bundle again") from error
        contents = {name: _verified(folder, name, manifest) for name in manifest.files}
        graphs = {}
        for graph in REQUIRED_GRAPHS:
            spec = manifest.graphs.get(graph)
            if spec is None or spec.file not in contents:
                raise BundleError(f"{folder} lacks the graph '{graph}'", hint="export the bundle again")
        for graph, spec in manifest.graphs.items():
            graphs[graph] = contents[spec.file]
        if TOKENIZER not in contents:
            raise BundleError(f"{folder} lacks {TOKENIZER}", hint="export the bundle again")
        return Bundle(folder, manifest, hashlib.sha256(text).hexdigest(), graphs)


def _verified(folder: Path, name: str, manifest: Manifest) -> bytes:
    """Bytes of a listed file whose size and hash are as the manifest says."""
    entry, parts = manifest.files[name], PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\\" in name:
        raise BundleError(f"{MANIFEST} names the file '{name}' outside the bundle", hint="do not use this bundle")
    path = folder.joinpath(*parts)
    if not path.is_file():
        raise BundleError(f"{folder} lacks the file {name}", note="the manifest lists it", hint="copy the bundle again")
    if path.stat().st_size != entry.size or entry.size > MAX_FILE_BYTES:
        raise BundleError(
            f"{path} has {path.stat().st_size} bytes", note=f"the manifest says {entry.size}", hint="copy it again"
        )
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != entry.sha256:
        raise BundleError(
            f"{path} does not have the SHA-256 of the manifest", hint="the file is damaged: copy it again"
        )
    return data
