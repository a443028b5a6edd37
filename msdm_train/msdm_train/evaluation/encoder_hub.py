"""Encoders by name from timm or transformers. They need a network, or weights that are on this machine already."""

from __future__ import annotations

import hashlib
import importlib
from types import ModuleType
from typing import Any

import torch

from msdm_engine.errors import BackendError
from msdm_train.evaluation.encoder import Batched, torch_forward


def timm_encoder(name: str) -> Batched:
    """A pretrained model of timm without its classifier, at its own size and normalisation.

    Raises:
        BackendError: timm is missing, does not know the name, or has no way to the weights.
    """
    timm = _package("timm")
    try:
        net = timm.create_model(name, pretrained=True, num_classes=0).eval()
    except (OSError, RuntimeError, ValueError) as error:
        raise _unreachable(f"timm:{name}", error) from error
    config = timm.data.resolve_data_config({}, model=net)
    forward = torch_forward(net, config["mean"], config["std"], tuple(config["input_size"][1:]))
    return Batched({"name": f"timm:{name}", "source": "timm", "sha256": weights_sha256(net)}, forward)


def transformers_encoder(name: str) -> Batched:
    """A pretrained image model of transformers, at its own size and normalisation.

    The embedding is the model's pooled output where it has one, else the mean of its last states.

    Raises:
        BackendError: transformers is missing, does not know the name, or has no way to the weights.
    """
    transformers = _package("transformers")
    try:
        net = transformers.AutoModel.from_pretrained(name).eval()
        processor = transformers.AutoImageProcessor.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise _unreachable(f"transformers:{name}", error) from error
    forward = torch_forward(_Pooled(net), processor.image_mean, processor.image_std, _size_of(processor))
    return Batched({"name": f"transformers:{name}", "source": "transformers", "sha256": weights_sha256(net)}, forward)


class _Pooled(torch.nn.Module):
    """Takes the embedding out of what transformers' models return."""

    def __init__(self, net: torch.nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = self.net(pixel_values=x)
        states = getattr(found, "pooler_output", None)
        states = found.last_hidden_state if states is None else states
        return states.flatten(1) if states.ndim == 4 and states.shape[2:] == (1, 1) else states


def _size_of(processor: Any) -> tuple[int, int]:
    size = processor.size
    side = size.get("shortest_edge") if hasattr(size, "get") else None
    return (side, side) if side else (size["height"], size["width"])


def _package(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise BackendError(f"an encoder of {name} needs the package {name}", hint=f"pip install {name}") from error


def _unreachable(name: str, error: Exception) -> BackendError:
    return BackendError(
        f"encoder {name} cannot be loaded: {error}",
        note="its weights come over the network, unless they are on this machine already",
        hint="check the name, fetch the weights where there is a network, or use the default encoder `lite0`",
    )


def weights_sha256(net: torch.nn.Module) -> str:
    """SHA-256 over names and bytes of all parameters and buffers, in the order of their names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(net.state_dict().items()):
        digest.update(name.encode() + b"\0" + tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
