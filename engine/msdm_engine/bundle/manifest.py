"""The manifest of a bundle: what it holds, how it is verified, what it needs."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import numpy as np

from msdm_engine.bundle.manifest_checks import free, keys, malformed, mapping, number, sequence, sha256, whole
from msdm_engine.bundle.manifest_checks import text as read_text
from msdm_engine.bundle.plan_spec import PlanSpec, read_plan
from msdm_engine.conditions.colour import RGB, Colour, RegionColour
from msdm_engine.contract import IMAGE_CHANNELS, MAP_CHANNELS
from msdm_engine.errors import BundleError, RequestError
from msdm_engine.pairs import MAX_SIDE_PX, MIN_SIDE_PX
from msdm_engine.requests.condition_ranges import Calibrated, read_calibrated
from msdm_engine.sampling.guidance import NO_GUIDANCE, Guidance
from msdm_engine.sampling.schedule import MAX_STEPS, RHO, SIGMA_MAX, SIGMA_MIN, karras_sigmas, solver_table

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
MAX_BATCH = 1024
MAX_FILE_BYTES = 8 * 2**30
#: Options of execution providers that name files, folders, libraries or addresses in memory hold one of these.
PLACES = (
    *("path", "dir", "file", "prefix", "library", "stream", "plugin", "config", "table", "dump"),
    *("external", "context", "pointer"),
)
BASE_CHANNELS = len(IMAGE_CHANNELS) + len(MAP_CHANNELS)
#: Keys that a manifest may lack, and does where they are empty.
OPTIONAL_KEYS = ("calibrated", "critic", "guidance", "plans", "providers")


@dataclass(frozen=True)
class FileEntry:
    """A file of the bundle: its size in bytes and SHA-256 in hexadecimal."""

    size: int
    sha256: str


@dataclass(frozen=True)
class TensorSpec:
    """A tensor of a graph; a dimension is a number or the name of a dynamic one."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class Variant:
    """A graph in another precision: the same tensors by name, typed as that graph gives them.

    Args:
        source_sha256: hash of the float32 graph that it was made from.
        opset: of its file.
        details: how it was made: which nodes stay float32 and why, ranges measured, tools.
    """

    file: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    source_sha256: str
    opset: int
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class GraphSpec:
    """An ONNX graph: file, tensors, and the largest error against PyTorch that was measured at export.

    Args:
        variants: the graph in other precisions, by the precision's name.
    """

    file: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    parity: dict[str, Any] = field(default_factory=dict)
    variants: dict[str, Variant] = field(default_factory=dict)


@dataclass(frozen=True)
class Preset:
    """A named appearance of the training data: a description and its mean colour."""

    description: str
    tags: dict[str, str]
    colour: Colour
    tiles: int


@dataclass(frozen=True)
class Sampling:
    """Default sampling of the bundle: solver, steps, noise range, and the size and batch that it was made for."""

    solver: str
    steps: int
    sigma_min: float
    sigma_max: float
    rho: float
    size_px: int
    batch: int

    def changed(self, *, steps: int | None = None, solver: str | None = None, batch: int | None = None) -> Sampling:
        """These defaults with what is given over them.

        Raises:
            RequestError: an unknown solver, or steps or batch out of range.
        """
        changed = replace(
            self,
            steps=self.steps if steps is None else steps,
            solver=self.solver if solver is None else solver,
            batch=self.batch if batch is None else batch,
        )
        if not 1 <= changed.batch <= MAX_BATCH:
            raise RequestError(f"batch {changed.batch}", note=f"1 to {MAX_BATCH}")
        changed.table()
        return changed

    def table(self) -> np.ndarray:
        """The solver's coefficients: [steps, 5] float64."""
        return solver_table(self.solver, karras_sigmas(self.steps, self.sigma_min, self.sigma_max, self.rho))


#: What a bundle gets unless it is exported with something else.
DEFAULT_SAMPLING = Sampling("dpmpp-2m", 20, SIGMA_MIN, SIGMA_MAX, RHO, size_px=128, batch=4)


@dataclass(frozen=True)
class Manifest:
    """The whole manifest; see the module's docstring.

    Args:
        stride: height and width must be multiples of this many pixels.
        text_tokens: T, the length that every text is padded to.
        n_classes: nucleus classes in the state; 0 for none.
        state_channels: C.
        data: ``name``, ``licence`` and ``source`` of the training data, which every pair carries on, and more.
        model, training, tools: provenance, as exported.
        guidance: what pairs get whose request does not name one; none in a bundle whose manifest lacks the key.
        critic: ``stride`` of the graph ``critic`` in pixels and its provenance; None for a bundle without it, whose
            manifest lacks the key.
        plans: compiled graphs, by a name that says what they are for; none until `msdm-export build`.
        providers: options of ONNX Runtime's execution providers for these graphs, by the provider's name. Nothing
            that names a file or a folder: a bundle does not decide where its user's machine reads and writes.
        calibrated: the ranges that it was calibrated on; None until `msdm-calibrate ranges --store`.
    """

    name: str
    stride: int
    text_tokens: int
    state_channels: int
    n_classes: int
    files: dict[str, FileEntry]
    graphs: dict[str, GraphSpec]
    presets: dict[str, Preset]
    sampling: Sampling
    model: dict[str, Any]
    training: dict[str, Any]
    data: dict[str, Any]
    tools: dict[str, str]
    critic: dict[str, Any] | None = None
    guidance: Guidance = NO_GUIDANCE
    plans: dict[str, PlanSpec] = field(default_factory=dict)
    providers: dict[str, dict[str, str]] = field(default_factory=dict)
    calibrated: Calibrated | None = None

    def to_json(self) -> str:
        """The text of ``manifest.json``; without what is optional it is what it was before that was there."""
        raw = {"format": FORMAT_VERSION, **asdict(self)}
        for graph in raw["graphs"].values():
            if not graph["variants"]:  # engines from before there were any refuse an unknown key
                del graph["variants"]
        for name in ("plans", "providers"):
            if not raw[name]:
                del raw[name]
        for name in ("calibrated", "critic"):
            if raw[name] is None:
                del raw[name]
        if self.guidance == NO_GUIDANCE:
            del raw["guidance"]
        else:
            raw["guidance"]["sigma_high"] = self.guidance.to_json()["sigma_high"]
        return json.dumps(raw, indent=1) + "\n"

    @staticmethod
    def from_json(text: str) -> Manifest:
        """Reads a manifest.

        Raises:
            BundleError: not JSON, an unknown format version, or a key that is missing, unknown or of a wrong type.
        """
        try:
            raw = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise BundleError(f"{MANIFEST} is not JSON: {error}", hint="export the bundle again") from error
        version = raw.get("format") if isinstance(raw, dict) else None
        if isinstance(version, bool) or version != FORMAT_VERSION:
            raise BundleError(
                f"{MANIFEST} has the unknown format version {version!r}"[:200],
                note=f"this engine reads version {FORMAT_VERSION}",
                hint="export the bundle with this version of msdm, or use the engine that made it",
            )
        del raw["format"]
        return _manifest(raw)


def _manifest(raw: dict[str, Any]) -> Manifest:
    top = keys(raw, "the manifest", [f.name for f in fields(Manifest) if f.name not in OPTIONAL_KEYS], OPTIONAL_KEYS)
    channels, classes = (
        whole(top["state_channels"], "state_channels", 1, 256),
        whole(top["n_classes"], "n_classes", 0, 250),
    )
    if channels != BASE_CHANNELS + classes:
        raise malformed(
            "state_channels", f"is {channels}, not {BASE_CHANNELS} (RGB and three maps) and {classes} classes"
        )
    data = free(top["data"], "data")
    return Manifest(
        name=read_text(top["name"], "name"),
        stride=whole(top["stride"], "stride", 1, 256),
        text_tokens=whole(top["text_tokens"], "text_tokens", 1, 4096),
        state_channels=channels,
        n_classes=classes,
        files=mapping(top["files"], "files", _file),
        graphs=mapping(top["graphs"], "graphs", _graph),
        presets=mapping(top["presets"], "presets", _preset),
        sampling=_sampling(top["sampling"], "sampling"),
        model=free(top["model"], "model"),
        training=free(top["training"], "training"),
        data=data | {name: read_text(data.get(name), f"data '{name}'") for name in ("name", "licence", "source")},
        tools=mapping(top["tools"], "tools", read_text),
        critic=_critic(top["critic"]) if "critic" in top else None,
        guidance=_guidance(top["guidance"], "guidance") if "guidance" in top else NO_GUIDANCE,
        plans=mapping(top.get("plans", {}), "plans", read_plan),
        providers=mapping(top.get("providers", {}), "providers", _provider_options),
        calibrated=read_calibrated(top["calibrated"], "calibrated") if "calibrated" in top else None,
    )


def _critic(raw: Any) -> dict[str, Any]:
    entry = free(raw, "critic")
    return {**entry, "stride": whole(entry.get("stride"), "critic stride", 1, 256)}


def _provider_options(raw: Any, where: str) -> dict[str, str]:
    options = mapping(raw, where, read_text)
    for name, value in options.items():
        if any(word in name.lower() for word in PLACES) or "/" in value or "\\" in value:
            raise malformed(f"{where} '{name}'", "names a place, which a bundle may not; give it with --backend")
    return options


def _file(raw: Any, where: str) -> FileEntry:
    entry = keys(raw, where, ("size", "sha256"))
    return FileEntry(
        whole(entry["size"], f"{where} size", 0, MAX_FILE_BYTES), sha256(entry["sha256"], f"{where} sha256")
    )


def _graph(raw: Any, where: str) -> GraphSpec:
    entry = keys(raw, where, ("file", "inputs", "outputs"), ("parity", "variants"))
    inputs, outputs = (sequence(entry[side], f"{where} {side}", _tensor) for side in ("inputs", "outputs"))
    return GraphSpec(
        read_text(entry["file"], f"{where} file"),
        inputs,
        outputs,
        free(entry.get("parity", {}), where),
        mapping(entry.get("variants", {}), f"{where} variants", _variant),
    )


def _variant(raw: Any, where: str) -> Variant:
    entry = keys(raw, where, ("file", "inputs", "outputs", "source_sha256", "opset"), ("details",))
    inputs, outputs = (sequence(entry[side], f"{where} {side}", _tensor) for side in ("inputs", "outputs"))
    return Variant(
        read_text(entry["file"], f"{where} file"),
        inputs,
        outputs,
        sha256(entry["source_sha256"], f"{where} source_sha256"),
        whole(entry["opset"], f"{where} opset", 1, 1000),
        free(entry.get("details", {}), f"{where} details"),
    )


def _tensor(raw: Any, where: str) -> TensorSpec:
    entry = keys(raw, where, ("name", "dtype", "shape"))
    name, dtype = (read_text(entry[key], f"{where} {key}") for key in ("name", "dtype"))
    return TensorSpec(name, dtype, sequence(entry["shape"], f"{where} shape", _dimension))


def _dimension(raw: Any, where: str) -> int | str:
    return read_text(raw, where) if isinstance(raw, str) else whole(raw, where, 0, 2**31)


def _preset(raw: Any, where: str) -> Preset:
    entry = keys(raw, where, ("description", "tags", "colour", "tiles"))
    colour = keys(entry["colour"], f"{where} colour", (), ("foreground", "background"))
    regions = {side: _region(value, f"{where} colour {side}") for side, value in colour.items() if value is not None}
    return Preset(
        read_text(entry["description"], f"{where} description"),
        mapping(entry["tags"], f"{where} tags", read_text),
        Colour(**regions),
        whole(entry["tiles"], f"{where} tiles", 0, 2**63),
    )


def _region(raw: Any, where: str) -> RegionColour:
    entry = keys(raw, where, ("mean", "std"))
    mean, std = (_rgb(entry[key], f"{where} {key}") for key in ("mean", "std"))
    try:
        return RegionColour(mean, std)
    except RequestError as error:
        raise malformed(where, f"is illegal: {error.what}") from error


def _rgb(raw: Any, where: str) -> RGB:
    values = sequence(raw, where, number)
    if len(values) != 3:
        raise malformed(where, f"has {len(values)} numbers, not 3")
    return values[0], values[1], values[2]


def _sampling(raw: Any, where: str) -> Sampling:
    entry = keys(raw, where, [f.name for f in fields(Sampling)])
    sampling = Sampling(
        solver=read_text(entry["solver"], f"{where} solver"),
        steps=whole(entry["steps"], f"{where} steps", 1, MAX_STEPS),
        sigma_min=number(entry["sigma_min"], f"{where} sigma_min"),
        sigma_max=number(entry["sigma_max"], f"{where} sigma_max"),
        rho=number(entry["rho"], f"{where} rho"),
        size_px=whole(entry["size_px"], f"{where} size_px", MIN_SIDE_PX, MAX_SIDE_PX),
        batch=whole(entry["batch"], f"{where} batch", 1, MAX_BATCH),
    )
    try:
        sampling.table()
    except RequestError as error:
        raise malformed(where, f"is illegal: {error.what}") from error
    return sampling


def _guidance(raw: Any, where: str) -> Guidance:
    entry = keys(raw, where, [f.name for f in fields(Guidance)])
    values = {name: number(value, f"{where} {name}") for name, value in entry.items() if value is not None}
    if set(entry) - set(values) - {"sigma_high"}:
        raise malformed(where, "has no number in place of a strength or of sigma_low")
    try:
        return Guidance(**values)
    except RequestError as error:
        raise malformed(where, f"is illegal: {error.what}") from error
