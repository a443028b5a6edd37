"""A trained segmenter -> the graph ``critic`` of a bundle, with its parity and its identity."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim

from msdm_engine.bundle.folder import entry_of
from msdm_engine.bundle.manifest import GraphSpec, Manifest
from msdm_engine.contract import CRITIC, CRITIC_INPUTS, CRITIC_OUTPUTS, MAP_CHANNELS
from msdm_engine.critic import image_from_pictures
from msdm_engine.errors import InputError
from msdm_engine.layouts import LayoutRequest, draw_layout
from msdm_engine.sampling.noise import gaussian
from msdm_export.graphs import GraphExport
from msdm_export.onnx_export import onnx_from_module, round_to_half, store_weights_in_half, tensor_specs
from msdm_export.sessions import run_session, session_from_model
from msdm_train.data.pack import Pack
from msdm_train.segmentation.predict import load_segmenter_module

#: Parity cases: height and width in px, on every stride of up to 32, and pictures.
CASES = ((64, 64, 1), (128, 128, 3), (96, 160, 2), (32, 288, 1))
#: Sizes that the graph takes: pictures, and height and width in strides.
_DIMENSIONS = (("batch", 4096), ("rows", 512), ("columns", 512))
#: Colours of nuclei and background where there are no real tiles, 8-bit units.
_DRAWN = np.array(((200, 170, 215), (95, 60, 150)))


@dataclass(frozen=True)
class ExportedCritic:
    """The graph as bytes, its tensors and parity, and where it comes from."""

    data: bytes
    spec: GraphSpec
    identity: dict[str, Any]


class _Named(nn.Module):
    """The segmenter under the contract's name of its input."""

    def __init__(self, segmenter: nn.Module) -> None:
        super().__init__()
        self.segmenter = segmenter

    def forward(self, image: Tensor) -> Tensor:
        """[N, 3, H, W] -> [N, 3, H, W]."""
        return self.segmenter(image)


def export_critic(segmenter: Path, *, half_storage: bool, pack: Path | None) -> ExportedCritic:
    """Exports a segmenter in float32 with dynamic batch, height and width.

    Args:
        segmenter: folder that ``msdm-train segment`` wrote.
        half_storage: store large weights as float16 (the arithmetic stays float32).
        pack: data whose ``val`` tiles the parity is measured on; None: coloured layouts.

    Raises:
        InputError: no segmenter, one whose maps are not of the contract, or weights that cannot be stored in half.
        BackendError: no ONNX runtime to measure the parity with.
    """
    module, identity = load_segmenter_module(segmenter)
    stride = module.stride
    rounding = round_to_half(module) if half_storage else 0.0
    named = _Named(module).eval()
    _check_output(segmenter, named, stride)
    batch, rows, columns = (Dim(name, min=1, max=largest) for name, largest in _DIMENSIONS)
    export = GraphExport(
        CRITIC,
        named,
        (torch.rand(3, 3, 4 * stride, 5 * stride) * 2 - 1,),
        CRITIC_INPUTS,
        CRITIC_OUTPUTS,
        {name: {0: batch, 2: stride * rows, 3: stride * columns} for name in CRITIC_INPUTS},
    )
    proto = onnx_from_module(export)
    if half_storage:
        try:
            store_weights_in_half(proto)
        except ValueError as error:  # the exporter has folded a batch norm into a convolution
            raise InputError(
                f"the segmenter {segmenter} cannot be stored in half: {error}",
                hint="store it in full: --weights float32",
            ) from error
    data = proto.SerializeToString()
    parity = _parity(named, data, Pack(pack) if pack else None)
    spec = GraphSpec(f"{CRITIC}.onnx", tensor_specs(proto.graph.input), tensor_specs(proto.graph.output), parity)
    stored = {
        "stride": stride,
        "parameters": sum(parameter.numel() for parameter in module.parameters()),
        "weights_stored_as": "float16" if half_storage else "float32",
        "largest_relative_rounding": rounding,
    }
    return ExportedCritic(data, spec, {**stored, **identity})


def with_critic(
    manifest: Manifest, files: dict[str, bytes], critic: ExportedCritic
) -> tuple[Manifest, dict[str, bytes]]:
    """Manifest and files of the bundle with this critic, instead of any that it had and of its plans."""
    kept = {name: data for name, data in files.items() if not _is_of_critic(manifest, name)}
    entries = {name: manifest.files[name] for name in kept}
    entries[critic.spec.file] = entry_of(critic.data)
    changed = replace(
        manifest,
        files=entries,
        graphs={**manifest.graphs, CRITIC: critic.spec},
        critic=critic.identity,
        plans={name: plan for name, plan in manifest.plans.items() if plan.graph != CRITIC},
    )
    return changed, {**kept, critic.spec.file: critic.data}


def _is_of_critic(manifest: Manifest, name: str) -> bool:
    old = manifest.graphs.get(CRITIC)
    return old is not None and name in {old.file, *(variant.file for variant in old.variants.values())}


def _check_output(folder: Path, module: nn.Module, stride: int) -> None:
    image = torch.rand(2, 3, 2 * stride, 3 * stride) * 2 - 1
    with torch.no_grad():
        maps = module(image)
    wanted = (2, len(MAP_CHANNELS), 2 * stride, 3 * stride)
    if tuple(maps.shape) != wanted or not bool((maps.abs() <= 1).all()):  # also refuses NaN
        raise InputError(
            f"the segmenter {folder} gives {tuple(maps.shape)} with values from {maps.min():g} to {maps.max():g}",
            note=f"foreground as 2p - 1, horizontal and vertical map in [-1, 1]: {wanted}",
        )


def _parity(module: nn.Module, data: bytes, pack: Pack | None) -> dict[str, Any]:
    """Largest absolute difference between PyTorch and ONNX Runtime, as in :mod:`msdm_export.parity`."""
    session = session_from_model(data)
    (given,), (asked,) = CRITIC_INPUTS, CRITIC_OUTPUTS
    worst = 0.0
    for pictures in _pictures(pack):
        image = image_from_pictures(pictures)
        found = run_session(session, {given: image})[asked]
        with torch.no_grad():
            expected = module(torch.from_numpy(image)).numpy()
        worst = max(worst, float(np.abs(found - expected).max()))
    return {
        "outputs": {asked: worst},
        "cases": [f"{w} x {h} px, {n} picture(s)" for h, w, n in CASES],
        "inputs": f"tiles of {pack.info.name} (val)" if pack else "drawn layouts",
        "against": "PyTorch float32, CPU",
    }


def _pictures(pack: Pack | None) -> Iterator[np.ndarray]:
    """Pictures of the cases: [N, H, W, 3] uint8."""
    for height, width, count in CASES:
        yield np.stack([_picture(i, height, width, pack) for i in range(count)])


def _picture(index: int, height: int, width: int, pack: Pack | None) -> np.ndarray:
    fields = pack.split("val") if pack else ()
    fitting = [field for field in fields if field.height_px >= height and field.width_px >= width]
    if pack and fitting:
        return pack.window(fitting[index % len(fitting)].id, 0, 0, height, width)[0]
    side = max(height, width, 64)  # the smallest that layouts are drawn in
    mask = draw_layout(LayoutRequest("round", height_px=side, width_px=side, seed=index))[:height, :width]
    grain = 10 * gaussian(0, index, 0, 3, height, width).transpose(1, 2, 0)
    return np.clip(_DRAWN[(mask > 0).astype(int)] + grain, 0, 255).astype(np.uint8)
