"""A trained segmenter at work: pictures of any size to instance maps."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from msdm_engine.conditions.decode import instances_from_maps
from msdm_engine.errors import InputError
from msdm_engine.inputs.masks import read_rgb
from msdm_engine.output.png import png_bytes, write_atomically
from msdm_train.segmentation.batches import pixels_from_images
from msdm_train.segmentation.checkpoint import SegmenterInfo, load_segmenter_network
from msdm_train.segmentation.network import Lite0, Plain

#: Pixels of the pictures that are looked at together; bounds the memory.
_BATCH_PX = 2**19


class CriticGraph(nn.Module):
    """A segmenter as a graph of the bundle.

    ``forward`` takes ``image`` [N, 3, H, W] float32 in [-1, 1], with H and W multiples of ``stride``, and gives
    ``critic_maps`` [N, 3, H, W] float32 in [-1, 1]: the foreground as 2 p - 1, horizontal and vertical.
    """

    def __init__(self, network: Plain | Lite0) -> None:
        super().__init__()
        self.network, self.stride = network, network.stride

    def forward(self, image: Tensor) -> Tensor:
        """Maps of the pictures."""
        output = self.network(image)
        # 2 sigmoid(z) - 1 = tanh(z / 2)
        return torch.cat([torch.tanh(output[:, :1] / 2), output[:, 1:].clamp(-1, 1)], 1)


def load_segmenter_module(folder: Path) -> tuple[CriticGraph, dict[str, str]]:
    """A trained segmenter as the module that is exported, and its identity (see :attr:`Segmenter.identity`)."""
    network, info = load_segmenter_network(folder)
    return CriticGraph(network).eval(), identity_of(info)


def identity_of(info: SegmenterInfo) -> dict[str, str]:
    """Architecture, steps, source as JSON, and SHA-256 of the weights."""
    return {
        "architecture": info.config.architecture,
        "steps": str(info.step),
        "source": json.dumps(info.source),
        "sha256": info.sha256,
    }


class Segmenter:
    """Predicts instance maps. Deterministic for equal pictures, threads and machine."""

    def __init__(self, module: CriticGraph, identity: dict[str, str]) -> None:
        self._module, self.identity = module, identity

    @classmethod
    def load(cls, folder: Path) -> Segmenter:
        """Opens the checkpoint that :func:`~msdm_train.segmentation.train.train_segmenter` returned.

        Raises:
            InputError: not a segmenter, or damaged.
        """
        return cls(*load_segmenter_module(folder))

    def __call__(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """[H, W, 3] uint8 pictures of any sizes -> [H, W] uint16 instance maps, in their order."""
        return [instances_from_maps(maps).astype(np.uint16) for maps in self.maps(images)]

    def maps(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """[H, W, 3] uint8 pictures of any sizes -> [3, H, W] float32 maps in [-1, 1], in their order.

        A picture is continued by its mirror image, downwards and to the right, to multiples of the stride.

        Raises:
            InputError: not an 8-bit colour picture.
        """
        by_size: dict[tuple[int, ...], list[int]] = {}
        for at, image in enumerate(images):
            if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
                raise InputError(f"a picture of shape {image.shape}, {image.dtype}", note="legal: [H, W, 3] uint8")
            by_size.setdefault(image.shape, []).append(at)
        found: dict[int, np.ndarray] = {}
        for (height, width, _), places in by_size.items():
            count = max(_BATCH_PX // (height * width), 1)
            for first in range(0, len(places), count):
                batch = places[first : first + count]
                maps = self._maps([self._padded(images[at]) for at in batch])[..., :height, :width]
                found.update(zip(batch, maps, strict=True))
        return [found[at] for at in range(len(images))]

    def _padded(self, image: np.ndarray) -> np.ndarray:
        height, width, _ = image.shape
        stride = self._module.stride
        return np.pad(image, ((0, -height % stride), (0, -width % stride), (0, 0)), mode="reflect")

    @torch.inference_mode()
    def _maps(self, images: list[np.ndarray]) -> np.ndarray:
        pixels = pixels_from_images(images).contiguous(memory_format=torch.channels_last)
        return np.ascontiguousarray(self._module(pixels).numpy())


def predict_folder(segment: Segmenter, images: Path, out: Path) -> dict[str, Any]:
    """Writes the instance map of each picture in ``images`` as ``out/<stem>.png`` (16 bits), one after another.

    Returns:
        ``pictures`` and ``nuclei``, their numbers.

    Raises:
        InputError: no pictures, two of one stem, or one that cannot be read.
    """
    paths = sorted(path for path in images.glob("*") if path.is_file() and not path.name.startswith("."))
    stems = [path.stem for path in paths]
    if not paths or len(set(stems)) < len(stems):
        what = "two pictures of one name" if paths else "no pictures"
        raise InputError(f"{images} holds {what}", hint="name a folder of pictures, each with a name of its own")
    out.mkdir(parents=True, exist_ok=True)
    nuclei = 0
    for path in paths:
        instances = segment([read_rgb(path)])[0]
        nuclei += int(instances.max())
        write_atomically(out / f"{path.stem}.png", png_bytes(instances))
    return {"pictures": len(paths), "nuclei": nuclei}
