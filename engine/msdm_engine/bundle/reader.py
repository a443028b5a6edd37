"""Opening a bundle: every file is read once, checked against its hash, and only then used."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path, PurePosixPath

from msdm_engine.bundle.manifest import MANIFEST, FileEntry, GraphSpec, Manifest, Variant
from msdm_engine.bundle.plan_spec import QUANTIZED
from msdm_engine.contract import (
    CONDITIONER,
    CONDITIONER_INPUTS,
    CRITIC,
    CRITIC_INPUTS,
    CRITIC_OUTPUTS,
    DENOISER,
    DENOISER_INPUTS,
    DENOISER_OUTPUTS,
    FLOAT32,
    TEXT_ENCODER,
    TEXT_ENCODER_INPUTS,
    TEXT_ENCODER_OUTPUTS,
)
from msdm_engine.errors import BundleError, nearest

REQUIRED_GRAPHS = (TEXT_ENCODER, CONDITIONER, DENOISER)
TOKENIZER = "tokenizer.json"
MAX_BUNDLE_BYTES = 16 * 2**30
MAX_MANIFEST_BYTES = 16 * 2**20


def reference_bundle() -> Path:
    """The bundle that ships with msdm."""
    return Path(str(resources.files("msdm_engine"))) / "bundles" / "reference"


def command_that_makes(precision: str, folder: Path) -> str:
    """The command that adds graphs of a precision to the bundle in ``folder``."""
    if precision in QUANTIZED:
        return f"msdm-calibrate quantize {folder} --to {precision} --data PACK"
    return f"msdm-export precision {folder} --to {precision}"


@dataclass(frozen=True)
class Bundle:
    """A verified bundle. What was verified is held in memory, and nothing is read from the folder again.

    Args:
        folder: where it lies.
        manifest: what it says of itself.
        sha256: hash of its manifest, which holds the hashes of all files: the identity of the bundle.
        contents: verified bytes of each file, by the name that the manifest gives it. Plans are large and most
            machines run few of them, so they are read and verified when asked for, see :meth:`plan_bytes`.
    """

    folder: Path
    manifest: Manifest
    sha256: str
    contents: dict[str, bytes] = field(repr=False)

    @property
    def graphs(self) -> dict[str, bytes]:
        """Verified bytes of each float32 graph, by the graph's name."""
        return {name: self.contents[spec.file] for name, spec in self.manifest.graphs.items()}

    def in_precision(self, precision: str) -> dict[str, GraphSpec | Variant]:
        """File and tensors of each graph in a precision: all graphs have it, or it is an error.

        Args:
            precision: ``float32`` for the graphs as exported, else a name of their variants, such as ``fp16``.

        Raises:
            BundleError: a graph lacks the precision, or its variant was made from another graph.
        """
        specs: dict[str, GraphSpec | Variant] = {}
        for name, spec in self.manifest.graphs.items():
            if precision == FLOAT32:
                specs[name] = spec
                continue
            make = command_that_makes(precision, self.folder)
            if precision not in spec.variants:
                raise BundleError(
                    f"bundle {self.manifest.name} has no {precision} graph '{name}'",
                    note=f"it has {', '.join([FLOAT32, *spec.variants])}",
                    hint=make,
                )
            variant = spec.variants[precision]
            if variant.source_sha256 != self.manifest.files[spec.file].sha256:
                raise BundleError(
                    f"the {precision} graph '{name}' of bundle {self.manifest.name} is stale",
                    note=f"{spec.file} is not the graph that {variant.file} was made from",
                    hint=make,
                )
            specs[name] = variant
        return specs

    @property
    def tokenizer(self) -> bytes:
        """Verified bytes of ``tokenizer.json``."""
        return self.contents[TOKENIZER]

    def plan_bytes(self, name: str) -> bytes:
        """Bytes of a plan, read and verified now; what is returned is what was hashed.

        Raises:
            BundleError: no such plan, or its file is missing, truncated or damaged.
        """
        spec = self.manifest.plans.get(name)
        if spec is None:
            raise BundleError(f"{self.folder} has no plan '{name}'", note=nearest(name, self.manifest.plans))
        return _verified(self.folder, spec.file, FileEntry(spec.size, spec.sha256))

    @staticmethod
    def open(folder: Path | str | None = None) -> Bundle:
        """Reads and verifies a bundle; None is the reference bundle.

        Raises:
            BundleError: no manifest, an unknown format, a file that is missing, of another size or hash, or
                outside the folder, a graph that is missing, or one whose tensors are not those of the contract.
        """
        folder = reference_bundle() if folder is None else Path(folder)
        path = folder / MANIFEST
        text = _manifest_bytes(folder, path)
        try:
            manifest = Manifest.from_json(text.decode())
        except UnicodeDecodeError as error:
            raise BundleError(f"{path} is not UTF-8 text: {error}", hint="export the bundle again") from error
        _check_graphs(folder, manifest)
        for name, plan in manifest.plans.items():
            if plan.graph not in manifest.graphs:
                raise BundleError(
                    f"{folder} has the plan '{name}' of the graph '{plan.graph}', which it lacks",
                    hint="export the bundle again",
                )
        total = sum(entry.size for entry in manifest.files.values())
        if total > MAX_BUNDLE_BYTES:
            raise BundleError(f"{folder} claims {total} bytes", note=f"at most {MAX_BUNDLE_BYTES}")
        contents = {name: _verified(folder, name, entry) for name, entry in manifest.files.items()}
        return Bundle(folder, manifest, hashlib.sha256(text).hexdigest(), contents)


def _manifest_bytes(folder: Path, path: Path) -> bytes:
    hint = "name the folder that `msdm-export onnx` wrote, or leave --bundle out for the reference bundle"
    try:
        if not path.is_file():
            raise BundleError(f"{folder} is not a bundle: it has no {MANIFEST}", hint=hint)
        with path.open("rb") as file:
            text = file.read(MAX_MANIFEST_BYTES + 1)
    except OSError as error:
        raise BundleError(
            f"{folder} is not a bundle: {MANIFEST} cannot be read ({error.strerror})", hint=hint
        ) from error
    if len(text) > MAX_MANIFEST_BYTES:
        raise BundleError(f"{path} is larger than {MAX_MANIFEST_BYTES} bytes", hint="do not use this bundle")
    return text


def _check_graphs(folder: Path, manifest: Manifest) -> None:
    """The graphs are there, and their tensors are those that the engine feeds and reads."""
    for graph in REQUIRED_GRAPHS:
        if graph not in manifest.graphs:
            raise BundleError(f"{folder} lacks the graph '{graph}'", hint="export the bundle again")
    for graph, spec in manifest.graphs.items():
        if spec.file not in manifest.files:
            raise BundleError(
                f"{folder} lacks the file {spec.file} of the graph '{graph}'",
                note=f"the manifest lists {', '.join(manifest.files)}",
                hint="export the bundle again",
            )
        _check_variants(folder, manifest, graph, spec)
    if TOKENIZER not in manifest.files:
        raise BundleError(f"{folder} lacks {TOKENIZER}", hint="export the bundle again")
    if (CRITIC in manifest.graphs) != (manifest.critic is not None):
        has, lacks = ("graph", "description") if CRITIC in manifest.graphs else ("description", "graph")
        raise BundleError(
            f"{folder} has the {has} of a critic and lacks its {lacks}",
            hint="add the critic again: msdm-export critic BUNDLE --from SEGMENTER --out NEW_BUNDLE",
        )
    # What else the conditioner gives out is handed to the denoiser under its own name.
    context = tuple(tensor.name for tensor in manifest.graphs[CONDITIONER].outputs)
    for graph, inputs, outputs in (
        (TEXT_ENCODER, TEXT_ENCODER_INPUTS, TEXT_ENCODER_OUTPUTS),
        (CONDITIONER, CONDITIONER_INPUTS, context),
        (DENOISER, (*DENOISER_INPUTS, *context), DENOISER_OUTPUTS),
        *([(CRITIC, CRITIC_INPUTS, CRITIC_OUTPUTS)] if CRITIC in manifest.graphs else []),
    ):
        for side, tensors, expected in (
            ("inputs", manifest.graphs[graph].inputs, inputs),
            ("outputs", manifest.graphs[graph].outputs, outputs),
        ):
            found = sorted(tensor.name for tensor in tensors)
            if found != sorted(expected):
                raise BundleError(
                    f"graph '{graph}' of {folder} has the {side} {', '.join(found)}",
                    note=f"the engine's contract says {', '.join(sorted(expected))}",
                    hint="export the bundle with this version of msdm",
                )


def _check_variants(folder: Path, manifest: Manifest, graph: str, spec: GraphSpec) -> None:
    """Files of a graph's variants are listed, and a variant has the tensors of its graph by name."""
    for precision, variant in spec.variants.items():
        if variant.file not in manifest.files:
            raise BundleError(
                f"{folder} lacks the file {variant.file} of the {precision} graph '{graph}'",
                hint=command_that_makes(precision, folder),
            )
        for side in ("inputs", "outputs"):
            found, expected = ([tensor.name for tensor in getattr(at, side)] for at in (variant, spec))
            if found != expected:
                raise BundleError(
                    f"the {precision} graph '{graph}' of {folder} has the {side} {', '.join(found)}",
                    note=f"the float32 graph has {', '.join(expected)}",
                    hint=command_that_makes(precision, folder),
                )


def _verified(folder: Path, name: str, entry: FileEntry) -> bytes:
    """Bytes of a listed file whose size and hash are as the manifest says."""
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\\" in name or ":" in name:
        raise BundleError(f"{MANIFEST} names the file '{name}' outside the bundle", hint="do not use this bundle")
    path = folder.joinpath(*parts)
    try:
        if not path.resolve().is_relative_to(folder.resolve()):
            raise BundleError(
                f"{path} is a link that leaves the bundle", note=f"to {path.resolve()}", hint="copy the file itself"
            )
        if not path.is_file():
            raise BundleError(
                f"{folder} lacks the file {name}", note="the manifest lists it", hint="copy the bundle again"
            )
        if path.stat().st_size != entry.size:
            raise BundleError(
                f"{path} has {path.stat().st_size} bytes", note=f"the manifest says {entry.size}", hint="copy it again"
            )
        with path.open("rb") as file:
            data = file.read(entry.size)
    except (OSError, RuntimeError) as error:  # a loop of links is a RuntimeError
        raise BundleError(f"{path} cannot be read: {error}", hint="copy the bundle again") from error
    if hashlib.sha256(data).hexdigest() != entry.sha256:
        raise BundleError(
            f"{path} does not have the SHA-256 of the manifest", hint="the file is damaged: copy it again"
        )
    return data
