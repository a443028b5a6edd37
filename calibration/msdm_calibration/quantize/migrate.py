"""Outlier migration: a channel's size moves from the activation, which has one scale, to the weight, which has many.

SmoothQuant (Xiao et al. 2023, equation 4): s_j = max|X_j|^a / max|W_j|^(1 - a), X_j / s_j and W_j s_j. Factors are
rounded to powers of two, so that every product of the sum is the same number to the bit: migration alone changes
nothing. Before most convolutions here stands a SiLU, through which no factor passes, so the division is a product
of its own (a fused kernel has it for nothing); where the exponent does not help its layer, there is none.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from msdm_calibration.quantize.criteria import proposals, weight_scales
from msdm_calibration.quantize.grids import Grid
from msdm_calibration.quantize.histogram import counts_of
from msdm_calibration.quantize.rewrite import migrated
from msdm_calibration.quantize.samples import Layer, Samples
from msdm_calibration.quantize.subject import Subject
from msdm_calibration.quantize.targets import Target

EXPONENTS = (0.25, 0.5, 0.75)
#: A migration must lower its layer's squared error by this share: it costs a multiplication for each value.
WORTH = 0.1


def factors(activation: np.ndarray, weight: np.ndarray, exponent: float) -> np.ndarray:
    """[I] powers of two, float32; one where a channel is always zero.

    Args:
        activation, weight: [I] largest absolute value of each input channel.
    """
    seen = (activation > 0) & (weight > 0)
    safe_x, safe_w = np.where(seen, activation, 1.0), np.where(seen, weight, 1.0)
    exact = safe_x**exponent / safe_w ** (1 - exponent)
    # Only ratios between channels matter; around one, nothing leaves the range of half.
    exact = exact / np.exp(np.mean(np.log(exact[seen]))) if seen.any() else exact
    rounded: np.ndarray = np.exp2(np.clip(np.rint(np.log2(exact)), -10, 10)).astype(np.float32)
    return np.where(seen, rounded, np.float32(1))


def divided(target: Target, x: np.ndarray, migration: np.ndarray | None) -> np.ndarray:
    """The input divided by the factors of its channels."""
    if migration is None:
        return x
    shape = [1] * x.ndim
    shape[target.channel_axis] = -1
    return x / migration.reshape(shape)


def layer_error(
    layer: Layer,
    target: Target,
    inputs: list[np.ndarray],
    weights: np.ndarray,
    grid: Grid,
    migration: np.ndarray | None,
) -> float:
    """Weighted mean over the samples of the squared error of the output, relative to its square.

    Each sample has a scale of its own, by MSE: what differs between levels is for :mod:`.follow_levels`.
    """
    weight = migrated(target, migration)
    rounded = grid.rounded(weight, target.per_output(weight_scales(weight, target.axis, grid)))
    total = 0.0
    for level, x in zip(weights, inputs, strict=True):
        moved = divided(target, x, migration)
        scale = proposals(counts_of(moved).astype(np.float64), grid).get("mse")
        if scale is None:
            continue
        expected = layer(x, target.weight)
        off = layer(grid.rounded(moved, scale), rounded) - expected
        total += level * float(np.mean(np.square(off)) / max(float(np.mean(np.square(expected))), 1e-30))
    return total


def migrations(subject: Subject, samples: Samples, weights: np.ndarray, grid: Grid) -> dict[str, np.ndarray]:
    """Node -> factors, for the targets that gain from them.

    Tensors that several targets read are left as they are: each would need a copy of its own.

    Args:
        weights: [steps kept] of the noise levels of the samples.
    """
    shared = Counter(target.tensor for target in subject.targets.found)
    found = {}
    for target in subject.targets.found:
        if shared[target.tensor] > 1:
            continue
        layer, inputs = Layer(subject, target.node), samples.inputs[target.tensor]
        other = tuple(axis for axis in range(target.weight.ndim) if axis != target.input_axis)
        largest = np.abs(target.weight).max(other)
        least = (1 - WORTH) * layer_error(layer, target, inputs, weights, grid, None)
        for exponent in EXPONENTS:
            tried = factors(samples.channel_largest[target.tensor], largest, exponent)
            if (tried == 1).all():
                continue
            error = layer_error(layer, target, inputs, weights, grid, tried)
            if error < least:
                least, found[target.node] = error, tried
    return found
