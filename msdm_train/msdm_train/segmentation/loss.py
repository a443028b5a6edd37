"""What a segmenter is trained on: HoVer-Net's losses (Graham et al. 2019, section 3.1.1)."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

#: Weight of the gradients' loss beside the three others: HoVer-Net's lambda_b.
GRADIENT_WEIGHT = 2.0
#: Keeps the Dice loss defined without nuclei; HoVer-Net's epsilon.
_SMOOTH = 1e-3


class SegmentationLoss(NamedTuple):
    """Scalars: what is minimised, and its parts before they are weighted."""

    total: Tensor
    cross_entropy: Tensor
    dice: Tensor
    maps: Tensor
    gradients: Tensor


def segmentation_loss(output: Tensor, target: Tensor) -> SegmentationLoss:
    """Cross-entropy (equation 4) and Dice (5) of the foreground, squared error of the maps (2) and of their slopes (3).

    In contrast to the paper, the maps count over nuclei only, as their slopes do: what they hold on background is never
    read. Slopes are differences between neighbouring pixels that both belong to nuclei, of the horizontal map along x
    and of the vertical map along y: where nuclei touch, the maps fall by up to 2 within a pixel.

    Args:
        output: [N, 3, H, W] of a segmenter: logit, horizontal, vertical.
        target: [N, 3, H, W] of :func:`msdm_engine.conditions.maps.maps_from_instances`.
    """
    nuclei = (target[:, :1] > 0).to(output.dtype)
    cross_entropy = F.binary_cross_entropy_with_logits(output[:, :1], nuclei)
    guess = torch.sigmoid(output[:, :1])
    dice = 1 - (2 * (guess * nuclei).sum() + _SMOOTH) / (guess.sum() + nuclei.sum() + _SMOOTH)
    error = output[:, 1:] - target[:, 1:]
    maps = (error.square() * nuclei).sum() / (2 * nuclei.sum()).clamp(min=1)
    # The difference of slopes is the slope of the difference.
    along_x, both_x = error[:, :1].diff(dim=3), nuclei[..., 1:] * nuclei[..., :-1]
    along_y, both_y = error[:, 1:].diff(dim=2), nuclei[..., 1:, :] * nuclei[..., :-1, :]
    pairs = (both_x.sum() + both_y.sum()).clamp(min=1)
    gradients = ((along_x.square() * both_x).sum() + (along_y.square() * both_y).sum()) / pairs
    total = cross_entropy + dice + maps + GRADIENT_WEIGHT * gradients
    return SegmentationLoss(total, cross_entropy, dice, maps, gradients)
