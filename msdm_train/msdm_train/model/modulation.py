"""Norm, modulation and SiLU of a residual block, with a backward pass of its own for training.

On a CPU in bfloat16, convolutions run near the machine's peak and 45 % of a step was element-wise work, most of it
in this chain: autograd differentiates each operation by itself, in float32, because the gain is float32. Here the
forward pass computes to the bit what the chain does, and the backward pass works in the precision of ``x``, in place.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

EPS = 1e-6


def normed(x: Tensor, gain: Tensor) -> Tensor:
    """RMS norm over channels: [B, C, H, W], gain [C, 1, 1] -> the same shape. Statistics are float32."""
    return x * _inverse_rms(x).to(x.dtype) * gain


def modulated(x: Tensor, gain: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """SiLU(norm(x) (1 + scale) + shift), in the wider precision of ``x`` and ``gain``.

    Args:
        x: [B, C, H, W].
        gain: [C, 1, 1].
        scale, shift: [B, C, H, W] (of the maps), or [B or 1, C, 1, 1] (of the noise level).
    """
    if torch.is_grad_enabled():
        return _Modulated.apply(x, gain, scale, shift)
    return F.silu(normed(x, gain) * (1 + scale) + shift)


class _Modulated(torch.autograd.Function):
    """With n = x / rms(x): z = n gain (1 + scale) + shift, y = SiLU(z)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        inverse = _inverse_rms(x)
        n = x * inverse.to(x.dtype)
        z = (n * gain).mul_(1 + scale).add_(shift)
        ctx.save_for_backward(n, inverse, z.to(x.dtype), gain, scale)
        ctx.shift_shape, ctx.shift_dtype = shift.shape, shift.dtype
        return F.silu(z)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        n, inverse, z, gain, scale = ctx.saved_tensors
        dz = torch.ops.aten.silu_backward(gradients[0].to(z.dtype), z)
        inner, factor = dz * n, 1 + scale
        scaled = _summed_to(inner, scale.shape)
        dgain = (scaled * factor).sum((0, 2, 3), dtype=_wide(n))[:, None, None].to(gain.dtype)
        dscale = (scaled * gain.to(scaled.dtype)).to(scale.dtype)
        dshift = _summed_to(dz, ctx.shift_shape).to(ctx.shift_dtype)
        factor = factor.mul_(gain.to(factor.dtype)).to(n.dtype)
        # Scaling x does not change n, so the part of the gradient along n is taken out.
        along = inner.mul_(factor).mean(1, keepdim=True, dtype=_wide(n))
        dx = (dz * factor).addcmul_(n, along.neg_().to(n.dtype)).mul_(inverse.to(n.dtype))
        return dx, dgain, dscale, dshift


def _inverse_rms(x: Tensor) -> Tensor:
    """[B, 1, H, W] float32; float64 for a double."""
    return torch.rsqrt(x.to(_wide(x)).square().mean(1, keepdim=True) + EPS)


def _summed_to(x: Tensor, shape: torch.Size) -> Tensor:
    """Sums over the axes that were broadcast, in float32; ``x`` itself where there were none."""
    axes = [axis for axis, (have, want) in enumerate(zip(x.shape, shape, strict=True)) if have != want]
    return x.sum(axes, keepdim=True, dtype=_wide(x)) if axes else x


def _wide(x: Tensor) -> torch.dtype:
    """Precision of statistics and sums: in bfloat16 a sum stops growing after 256 equal terms."""
    return torch.promote_types(x.dtype, torch.float32)
