"""The bundle's graphs as PyTorch modules whose inputs and outputs are exactly those of the ONNX files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from msdm_engine.contract import (
    COLOUR_FEATURES,
    CONDITIONER,
    CONDITIONER_INPUTS,
    DENOISER,
    DENOISER_INPUTS,
    DENOISER_OUTPUTS,
    TEXT_ENCODER,
    TEXT_ENCODER_INPUTS,
    TEXT_ENCODER_OUTPUTS,
)
from msdm_train.model.conditioner import Conditions, Context
from msdm_train.model.config import ModelConfig
from msdm_train.model.msdm import MSDM

CONTEXT = ("keys", "values", "bias", "pooled")


class TextEncoderGraph(nn.Module):
    """Token ids [N, T] and mask [N, T] -> token states [N, T, D]."""

    def __init__(self, model: MSDM) -> None:
        super().__init__()
        self.encoder = model.text_encoder

    def forward(self, token_ids: Tensor, token_mask: Tensor) -> Tensor:
        """As the class says."""
        return self.encoder(token_ids, token_mask)


class ConditionerGraph(nn.Module):
    """Conditions of N samples -> keys, values, bias, pooled and the map features of each resolution."""

    def __init__(self, model: MSDM) -> None:
        super().__init__()
        self.conditioner = model.conditioner

    def forward(
        self,
        maps: Tensor,
        maps_present: Tensor,
        colour: Tensor,
        colour_present: Tensor,
        token_states: Tensor,
        token_mask: Tensor,
    ) -> tuple[Tensor, ...]:
        """As the class says."""
        context = self.conditioner(Conditions(maps, maps_present, colour, colour_present, token_states, token_mask))
        return (*context[:4], *context.map_features)


class DenoiserGraph(nn.Module):
    """One step: guidance over G branches, and the solver's linear update, both in float32.

    D = sum_g w_g D(x, c_g), then x' = c_x x + c_d D + c_prev D_prev + c_noise z.
    """

    def __init__(self, model: MSDM) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        state: Tensor,
        denoised_prev: Tensor,
        noise: Tensor,
        row: Tensor,
        guidance: Tensor,
        keys: Tensor,
        values: Tensor,
        bias: Tensor,
        pooled: Tensor,
        map_features: tuple[Tensor, ...],
    ) -> tuple[Tensor, Tensor]:
        """state, denoised_prev, noise [B, C, H, W]; row [5]; guidance [G, B]; conditions [G, B, ...]."""
        branches, batch = guidance.shape
        context = Context(
            keys.flatten(0, 1),
            values.flatten(0, 1),
            bias.flatten(0, 1),
            pooled.flatten(0, 1),
            tuple(features.flatten(0, 1) for features in map_features),
        )
        folded = state.expand(branches, *state.shape).flatten(0, 1)
        each = self.model(folded, row[:1], context).reshape(branches, *state.shape)
        denoised = (guidance.reshape(branches, batch, 1, 1, 1) * each).sum(0)
        following = row[1] * state + row[2] * denoised + row[3] * denoised_prev + row[4] * noise
        return following, denoised


@dataclass(frozen=True)
class GraphExport:
    """What the exporter needs: module, example inputs in order, names, and which dimensions are dynamic."""

    name: str
    module: nn.Module
    example: tuple[Any, ...]
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    dynamic: dict[str, Any]


def map_feature_names(config: ModelConfig) -> tuple[str, ...]:
    """``map_features_0`` (finest) to the coarsest."""
    return tuple(f"map_features_{level}" for level in range(len(config.channels)))


def example_conditions(config: ModelConfig, samples: int, height: int, width: int) -> dict[str, Tensor]:
    """Random legal inputs of the conditioner for tracing."""
    return {
        "maps": torch.rand(samples, config.maps, height, width) * 2 - 1,
        "maps_present": torch.ones(samples, 1),
        "colour": torch.rand(samples, COLOUR_FEATURES),
        "colour_present": torch.ones(samples, 2),
        "token_states": torch.randn(samples, config.text_tokens, config.text.hidden),
        "token_mask": torch.ones(samples, config.text_tokens),
    }


def graph_exports(model: MSDM) -> list[GraphExport]:
    """The graphs of a model, dynamic in batch, height and width (and guidance branches)."""
    config = model.config
    n, b, g = Dim("samples", min=1, max=4096), Dim("batch", min=1, max=4096), Dim("branches", min=1, max=16)
    # Height and width as multiples of the stride, so that every resolution is exact.
    h, w = Dim("rows", min=1, max=512), Dim("columns", min=1, max=512)
    height, width = 4 * config.stride, 5 * config.stride
    features = map_feature_names(config)
    scales = [config.stem * 2**level for level in range(len(features))]
    text = (torch.ones(2, config.text_tokens, dtype=torch.int64), torch.ones(2, config.text_tokens))
    conditions = example_conditions(config, 6, height, width)
    with torch.no_grad():
        context = model.conditioner(Conditions(**conditions))
    image = {2: config.stride * h, 3: config.stride * w}
    # Three tensors, not one thrice: the exporter takes equal objects for one input.
    state, denoised_prev, noise = torch.randn(3, 3, config.state_channels, height, width).unbind()
    folded = [tensor.reshape(2, 3, *tensor.shape[1:]) for tensor in context[:4]]
    pyramid = tuple(tensor.reshape(2, 3, *tensor.shape[1:]) for tensor in context.map_features)
    return [
        GraphExport(
            TEXT_ENCODER,
            TextEncoderGraph(model),
            text,
            TEXT_ENCODER_INPUTS,
            TEXT_ENCODER_OUTPUTS,
            {name: {0: n} for name in TEXT_ENCODER_INPUTS},
        ),
        GraphExport(
            CONDITIONER,
            ConditionerGraph(model),
            tuple(conditions[name] for name in CONDITIONER_INPUTS),
            CONDITIONER_INPUTS,
            (*CONTEXT, *features),
            {name: {0: n, **image} if name == "maps" else {0: n} for name in CONDITIONER_INPUTS},
        ),
        GraphExport(
            DENOISER,
            DenoiserGraph(model),
            (state, denoised_prev, noise, torch.tensor([1.0, 0.5, 0.5, 0, 0]), torch.full((2, 3), 0.5),
             *folded, pyramid),
            (*DENOISER_INPUTS, *CONTEXT, *features),
            DENOISER_OUTPUTS,
            {
                **{name: {0: b, **image} for name in ("state", "denoised_prev", "noise")},
                "row": {},
                **{name: {0: g, 1: b} for name in ("guidance", *CONTEXT)},
                "map_features": tuple(
                    {0: g, 1: b, 3: config.stride // s * h, 4: config.stride // s * w} for s in scales
                ),
            },
        ),
    ]  # fmt: skip
