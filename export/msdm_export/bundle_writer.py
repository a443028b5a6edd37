"""Checkpoint -> bundle: graphs, tokenizer, model card and manifest, written whole or not at all."""

from __future__ import annotations

import platform
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from msdm_engine.bundle.folder import entry_of, with_plans, write_new
from msdm_engine.bundle.manifest import (
    DEFAULT_SAMPLING,
    MANIFEST,
    GraphSpec,
    Manifest,
    Preset,
    Sampling,
)
from msdm_engine.bundle.reader import TOKENIZER, Bundle
from msdm_engine.conditions.colour import Colour, RegionColour
from msdm_engine.conditions.metadata import TextTokenizer
from msdm_engine.contract import CRITIC
from msdm_engine.errors import OutputError
from msdm_export.conditions import Conditions
from msdm_export.critic import export_critic, with_critic
from msdm_export.graphs import graph_exports
from msdm_export.onnx_export import onnx_from_module, round_to_half, store_weights_in_half, tensor_specs
from msdm_export.parity import measure_parity
from msdm_export.weights import locate_weights
from msdm_train.data.pack import Pack
from msdm_train.training.checkpoint import CheckpointInfo, load_model, settled

MODEL_CARD = "MODEL_CARD.md"


def export_bundle(
    checkpoint: Path,
    out: Path,
    *,
    name: str,
    half_storage: bool = True,
    pack: Path | None = None,
    card: Path | None = None,
    sampling: Sampling = DEFAULT_SAMPLING,
    critic: Path | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> Manifest:
    """Exports a checkpoint.

    Args:
        checkpoint: folder with ``checkpoint.json``.
        out: bundle folder to write; an existing bundle is replaced, anything else is an error.
        half_storage: store large weights as float16 (the arithmetic stays float32).
        pack: data whose ``val`` masks the parity is measured on; None: drawn layouts.
        card: model card to ship with the bundle.
        sampling: default solver, steps, size and batch of the bundle.
        critic: folder of a segmenter trained on real tiles that becomes the bundle's critic; None: it has none.
        report: told what is being done.

    Raises:
        InputError: the checkpoint, pack or segmenter cannot be used.
        OutputError: ``out`` exists and is no bundle.
    """
    _check_out(out)
    checkpoint = settled(checkpoint)
    model, info = load_model(checkpoint)
    rounding = round_to_half(model) if half_storage else 0.0
    exports = graph_exports(model)
    graphs: dict[str, bytes] = {}
    specs: dict[str, GraphSpec] = {}
    for export in exports:
        report(f"exporting {export.name}")
        proto = onnx_from_module(export)
        if half_storage:
            store_weights_in_half(proto)
        graphs[export.name] = proto.SerializeToString()
        specs[export.name] = GraphSpec(
            f"{export.name}.onnx", tensor_specs(proto.graph.input), tensor_specs(proto.graph.output)
        )
    weights = locate_weights(model, graphs)
    report("measuring parity with PyTorch")
    presets = presets_from_statistics(info.data["statistics"])
    tokenizer = TextTokenizer(checkpoint / TOKENIZER, info.model.text_tokens)
    channels, classes = info.model.state_channels, info.model.n_classes
    source = Conditions(presets, tokenizer, channels, classes, Pack(pack) if pack else None)
    parity = measure_parity(model, graphs, source)
    files = {specs[graph].file: data for graph, data in graphs.items()}
    files[TOKENIZER] = (checkpoint / TOKENIZER).read_bytes()
    if card is not None:
        files[MODEL_CARD] = card.read_bytes()
    manifest = _manifest(name, info, specs, parity, presets, files, half_storage, rounding, weights, sampling)
    if critic is not None:
        report(f"exporting {CRITIC}")
        judge = export_critic(critic, half_storage=half_storage, pack=pack)
        manifest, files = with_critic(manifest, files, judge)
    write_new(out, manifest, files)
    return manifest


def _check_out(out: Path) -> None:
    if out.exists() and not (out / MANIFEST).is_file():
        raise OutputError(f"{out} exists and is not a bundle", hint="choose another --out")


def add_critic(
    bundle: Path, segmenter: Path, out: Path, *, half_storage: bool = True, pack: Path | None = None
) -> Manifest:
    """Writes a bundle with this critic, instead of any that it has; everything else stays to the byte.

    Args:
        bundle: folder of the bundle.
        segmenter: folder of the segmenter, see :func:`msdm_export.critic.export_critic`.
        out: bundle folder to write, which may be the same; an existing bundle is replaced, anything else is an error.
        half_storage, pack: as for :func:`export_bundle`.

    Raises:
        BundleError: ``bundle`` is none, or damaged.
        InputError: the segmenter cannot be used.
        OutputError: ``out`` exists and is no bundle.
    """
    _check_out(out)
    opened = Bundle.open(bundle)
    critic = export_critic(segmenter, half_storage=half_storage, pack=pack)
    manifest, files = with_critic(opened.manifest, opened.contents, critic)
    write_new(out, manifest, with_plans(files, opened, manifest))
    return manifest


def presets_from_statistics(statistics: dict[str, Any]) -> dict[str, Preset]:
    """Named presets from a pack's statistics; names join the tags, such as ``lilac-columnar-large``."""
    presets: dict[str, Preset] = {}
    for description, entry in statistics["presets"].items():
        name = "-".join(entry["tags"].values()) or f"preset-{len(presets)}"
        regions = {
            side: RegionColour(tuple(entry[side]["mean"]), tuple(entry[side]["std"])) if side in entry else None
            for side in ("foreground", "background")
        }
        presets[name] = Preset(description, entry["tags"], Colour(**regions), entry["tiles"])
    return presets


def _manifest(
    name: str,
    info: CheckpointInfo,
    specs: dict[str, GraphSpec],
    parity: dict[str, dict[str, Any]],
    presets: dict[str, Preset],
    files: dict[str, bytes],
    half_storage: bool,
    rounding: float,
    weights: dict[str, list[str]],
    sampling: Sampling,
) -> Manifest:
    config = info.model
    return Manifest(
        name=name,
        stride=config.stride,
        text_tokens=config.text_tokens,
        state_channels=config.state_channels,
        n_classes=config.n_classes,
        files={file: entry_of(data) for file, data in files.items()},
        graphs={graph: GraphSpec(spec.file, spec.inputs, spec.outputs, parity[graph]) for graph, spec in specs.items()},
        presets=presets,
        sampling=sampling,
        model={
            "config": config.to_json(),
            "weights_stored_as": "float16" if half_storage else "float32",
            "largest_relative_rounding": rounding,
            "weights": weights,
        },
        training={"steps": info.step, **info.training},
        data={key: info.data[key] for key in ("name", "licence", "source", "trained_on_fields")},
        tools={
            "python": platform.python_version(),
            **{tool: version(tool) for tool in ("msdm", "torch", "onnx", "onnxscript", "transformers")},
        },
    )
