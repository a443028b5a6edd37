"""Parity of exported graphs with PyTorch: the same inputs through both, the largest difference kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from msdm_engine.conditions.maps import maps_from_instances
from msdm_engine.contract import CONDITIONER, CONDITIONER_INPUTS, DENOISER, DENOISER_INPUTS, TEXT_ENCODER
from msdm_engine.errors import BackendError
from msdm_engine.layouts import LayoutRequest, draw_layout
from msdm_engine.manifest import Preset
from msdm_engine.noise import gaussian
from msdm_engine.schedule import dpmpp_2m_table, karras_sigmas
from msdm_export.graphs import CONTEXT, GraphExport
from msdm_train.data.pack import Pack
from msdm_train.model.config import ModelConfig

#: height x width in pixels, samples, guidance branches
CASES = ((64, 64, 1, 1), (128, 128, 3, 1), (96, 160, 2, 2), (256, 192, 1, 3))


@dataclass(frozen=True)
class Case:
    """Inputs of one parity case: maps [N, 3, H, W] (N = branches x batch), colour, text, guidance branches."""

    maps: np.ndarray
    colour: np.ndarray
    colour_present: np.ndarray
    token_ids: np.ndarray
    token_mask: np.ndarray
    branches: int


class Conditions:
    """Source of real conditions: masks of a pack or drawn layouts, with colours and texts of the presets."""

    def __init__(self, presets: dict[str, Preset], encode: Any, pack: Pack | None) -> None:
        self.presets, self.encode, self.pack = list(presets.values()), encode, pack
        self.source = f"masks of {pack.info.name} (val)" if pack else "drawn layouts"

    def cases(self) -> Iterator[Case]:
        """The cases of :data:`CASES`."""
        for i, (height, width, batch, branches) in enumerate(CASES):
            chosen = [self.presets[(i + k) % len(self.presets)] for k in range(batch)] * branches
            masks = [self._mask(k, height, width) for k in range(batch)] * branches
            colour = [preset.colour.features() for preset in chosen]
            text = [self.encode(preset.description) for preset in chosen]
            yield Case(
                np.stack([maps_from_instances(mask) for mask in masks]),
                np.stack([c[0] for c in colour]),
                np.stack([c[1] for c in colour]),
                np.stack([t[0] for t in text]),
                np.stack([t[1] for t in text]),
                branches,
            )

    def _mask(self, index: int, height: int, width: int) -> np.ndarray:
        if self.pack and self.pack.split("val"):
            fields = [f for f in self.pack.split("val") if f.height_px >= height and f.width_px >= width]
            if fields:
                return self.pack.window(fields[index % len(fields)].id, 0, 0, height, width)[1]
        return draw_layout(LayoutRequest("round", height_px=height, width_px=width, seed=index))


def measure_parity(
    exports: list[GraphExport], graphs: dict[str, bytes], config: ModelConfig, conditions: Conditions
) -> dict[str, dict[str, Any]]:
    """Largest absolute difference of each output of each graph between PyTorch and ONNX Runtime (CPU).

    Returns:
        for each graph: ``outputs`` (name -> largest absolute difference), ``cases``, ``inputs`` (their source).
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise BackendError(
            "parity needs an ONNX runtime and none is installed", hint="pip install 'msdm[export,cpu]'"
        ) from error
    sessions = {
        name: onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"]) for name, graph in graphs.items()
    }
    modules = {export.name: export.module.eval() for export in exports}
    worst: dict[str, dict[str, float]] = {name: {} for name in graphs}

    def both(name: str, inputs: dict[str, np.ndarray], arguments: tuple[Any, ...]) -> dict[str, np.ndarray]:
        """Runs one graph both ways; keeps the difference, returns PyTorch's outputs."""
        names = [output.name for output in sessions[name].get_outputs()]
        found = sessions[name].run(names, inputs)
        with torch.no_grad():
            expected = modules[name](*arguments)
        expected = expected if isinstance(expected, tuple) else (expected,)
        for output, mine, theirs in zip(names, found, expected, strict=True):
            difference = float(np.abs(mine - theirs.numpy()).max())
            worst[name][output] = max(worst[name].get(output, 0.0), difference)
        return {output: value.numpy() for output, value in zip(names, expected, strict=True)}

    def tensors(arrays: dict[str, np.ndarray]) -> tuple[torch.Tensor, ...]:
        return tuple(torch.from_numpy(array) for array in arrays.values())

    table = dpmpp_2m_table(karras_sigmas(6)).astype(np.float32)
    for case in conditions.cases():
        text = {"token_ids": case.token_ids, "token_mask": case.token_mask}
        states = both(TEXT_ENCODER, text, tensors(text))["token_states"]
        present = np.ones((len(case.maps), 1), np.float32)
        values = (case.maps, present, case.colour, case.colour_present, states, case.token_mask)
        given = dict(zip(CONDITIONER_INPUTS, values, strict=True))
        context = both(CONDITIONER, given, tensors(given))
        g, b = case.branches, len(case.maps) // case.branches
        folded = {name: value.reshape(g, b, *value.shape[1:]) for name, value in context.items()}
        guidance = np.full((g, b), 1 / g, np.float32)
        height, width = case.maps.shape[2:]
        z = np.stack([gaussian(0, i, 0, config.state_channels, height, width) for i in range(b)])
        for row in table:
            state = (row[0] * z).astype(np.float32)
            step = dict(zip(DENOISER_INPUTS, (state, z, z, row, guidance), strict=True))
            levels = tuple(torch.from_numpy(folded[name]) for name in folded if name not in CONTEXT)
            arguments = (*tensors(step), *(torch.from_numpy(folded[name]) for name in CONTEXT), levels)
            both(DENOISER, {**step, **folded}, arguments)
    described = [f"{w} x {h} px, {b} sample(s), {g} branch(es)" for h, w, b, g in CASES]
    return {
        name: {"outputs": errors, "cases": described, "inputs": conditions.source, "against": "PyTorch float32, CPU"}
        for name, errors in worst.items()
    }
