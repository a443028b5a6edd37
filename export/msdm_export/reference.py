"""PyTorch float32 as a way to run a bundle's graphs: the reference of every comparison."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from msdm_engine.contract import (
    CONDITIONER,
    CONDITIONER_INPUTS,
    DENOISER,
    DENOISER_INPUTS,
    DENOISER_OUTPUTS,
    TEXT_ENCODER,
    TEXT_ENCODER_INPUTS,
    TEXT_ENCODER_OUTPUTS,
)
from msdm_export.conditions import Arrays, Run
from msdm_export.graphs import CONTEXT, ConditionerGraph, DenoiserGraph, TextEncoderGraph, map_feature_names
from msdm_train.model.msdm import MSDM


def run_of_model(model: MSDM) -> Run:
    """Runs the graphs with PyTorch: graph and inputs -> outputs, all float32 on the CPU."""
    levels = map_feature_names(model.config)
    graphs: dict[str, tuple[nn.Module, tuple[str, ...], tuple[str, ...]]] = {
        TEXT_ENCODER: (TextEncoderGraph(model), TEXT_ENCODER_INPUTS, TEXT_ENCODER_OUTPUTS),
        CONDITIONER: (ConditionerGraph(model), CONDITIONER_INPUTS, (*CONTEXT, *levels)),
        DENOISER: (DenoiserGraph(model), (*DENOISER_INPUTS, *CONTEXT), DENOISER_OUTPUTS),
    }

    def run(graph: str, inputs: Arrays) -> Arrays:
        module, names, outputs = graphs[graph]
        arguments: list[Tensor | tuple[Tensor, ...]] = [_tensor(inputs[name]) for name in names]
        if graph == DENOISER:
            arguments.append(tuple(_tensor(inputs[name]) for name in levels))
        with torch.no_grad():
            found = module.eval()(*arguments)
        found = found if isinstance(found, tuple) else (found,)
        return {name: value.numpy() for name, value in zip(outputs, found, strict=True)}

    return run


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))
