"""Power spectra of pictures: where a generator has more or less texture than tissue has."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

EDGES = (0.02, 0.08, 0.16, 0.25, 0.35, 0.42, 0.5, 0.71)  # of the bands: cycles a pixel, distance from zero


def mean_power(pictures: list[np.ndarray], basis: np.ndarray) -> np.ndarray:
    """Pictures [H, W, 3] uint8 of one size, rows of the colour basis [3, 3] -> mean power [3, H, W]."""
    height, width = pictures[0].shape[:2]
    hann = np.hanning(height)[:, None] * np.hanning(width)
    total = np.zeros((3, height, width))
    for picture in pictures:
        axes = np.einsum("kc,hwc->khw", basis, picture.astype(np.float64))
        total += np.abs(np.fft.fft2((axes - axes.mean((1, 2), keepdims=True)) * hann)) ** 2
    return total / len(pictures)


def by_band(made: np.ndarray, real: np.ndarray) -> list[list[float]]:
    """Mean power of either [3, H, W] -> for each axis the amplitude of ``made`` over ``real`` in each band."""
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(made.shape[2]), np.fft.fftfreq(made.shape[1])))
    bands = [(low <= frequency) & (frequency < high) for low, high in pairwise(EDGES)]
    return [
        [round(float(np.sqrt(m[band].mean() / r[band].mean())), 3) for band in bands]
        for m, r in zip(made, real, strict=True)
    ]
