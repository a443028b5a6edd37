"""How different two colours look: CIEDE2000 of sRGB colours."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from msdm_engine.errors import InputError

#: Linear sRGB (IEC 61966-2-1) to CIE XYZ, white D65 at Y = 1.
XYZ_FROM_RGB = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
#: The row sums: white (255, 255, 255) then has exactly L* = 100, a* = b* = 0.
WHITE_D65 = XYZ_FROM_RGB.sum(1)


def lab_from_rgb(rgb: NDArray[np.generic]) -> NDArray[np.float64]:
    """CIE 1976 L*a*b* (D65) of sRGB colours.

    Args:
        rgb: [..., 3] numbers from 0 to 255, fractions legal (means of pixels).

    Returns:
        [..., 3] float64: L* from 0 to 100, a* and b* roughly from -110 to 110.

    Raises:
        InputError: the last dimension is not 3, or a value lies outside 0 to 255.
    """
    values = np.asarray(rgb, np.float64)
    if values.shape[-1:] != (3,) or not ((values >= 0) & (values <= 255)).all():
        raise InputError(f"colours of shape {list(values.shape)}", note="[..., 3] red, green, blue from 0 to 255")
    unit = values / 255
    linear = np.where(unit <= 0.04045, unit / 12.92, ((unit + 0.055) / 1.055) ** 2.4)
    ratio = linear @ XYZ_FROM_RGB.T / WHITE_D65
    edge = 6 / 29
    f = np.where(ratio > edge**3, np.cbrt(ratio), ratio / (3 * edge**2) + 4 / 29)
    x, y, z = np.moveaxis(f, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def ciede2000(lab: NDArray[np.floating], other: NDArray[np.floating]) -> NDArray[np.float64]:
    """CIEDE2000 colour difference, all weights (k_L, k_C, k_H) one: about 1 is just noticeable side by side.

    Sharma, Wu and Dalal, *The CIEDE2000 Color-Difference Formula: Implementation Notes, Supplementary Test Data, and
    Mathematical Observations*, Color Research and Application 30 (2005) 21-30, equations 2 to 22.

    Args:
        lab, other: [..., 3] L*, a*, b*; broadcast against one another.

    Returns:
        [...] float64, 0 for equal colours; symmetric.
    """
    l1, c1, h1, l2, c2, h2 = _lightness_chroma_hue(np.asarray(lab, np.float64), np.asarray(other, np.float64))
    # Differences of lightness, chroma and hue, equations 8 to 11. A colour without chroma has no hue.
    hued = c1 * c2 > 0
    turn = (h2 - h1 + np.pi) % (2 * np.pi) - np.pi  # to [-pi, pi)
    dl, dc = l2 - l1, c2 - c1
    dh = 2 * np.sqrt(c1 * c2) * np.sin(np.where(hued, turn, 0) / 2)
    # Means, equations 12 to 14: the mean hue lies on the shorter arc.
    light, chroma = (l1 + l2) / 2, (c1 + c2) / 2
    hue = np.where(hued, _mean_hue(h1, h2), h1 + h2)
    # Weights, equations 15 to 21.
    t = 1 - 0.17 * np.cos(hue - np.radians(30)) + 0.24 * np.cos(2 * hue)
    t += 0.32 * np.cos(3 * hue + np.radians(6)) - 0.20 * np.cos(4 * hue - np.radians(63))
    bend = np.radians(30) * np.exp(-(((np.degrees(hue) - 275) / 25) ** 2))
    rotation = -np.sin(2 * bend) * 2 * np.sqrt(_saturation(chroma))
    sl = 1 + 0.015 * (light - 50) ** 2 / np.sqrt(20 + (light - 50) ** 2)
    lightness, colourfulness, tint = dl / sl, dc / (1 + 0.045 * chroma), dh / (1 + 0.015 * chroma * t)
    # Equation 22. Rounding may leave a negative zero under the root for equal colours.
    squared = lightness**2 + colourfulness**2 + tint**2 + rotation * colourfulness * tint
    return np.sqrt(np.maximum(squared, 0))


def _saturation(chroma: NDArray[np.float64]) -> NDArray[np.float64]:
    """C^7 / (C^7 + 25^7), from 0 for greys towards 1."""
    return chroma**7 / (chroma**7 + 25.0**7)


def _lightness_chroma_hue(lab: NDArray[np.float64], other: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """L, C', h' (radians in [0, 2 pi)) of both colours, equations 2 to 7: a* is stretched for colours near grey."""
    lab, other = np.broadcast_arrays(lab, other)
    mean_chroma = (np.hypot(lab[..., 1], lab[..., 2]) + np.hypot(other[..., 1], other[..., 2])) / 2
    stretch = 1 + 0.5 * (1 - np.sqrt(_saturation(mean_chroma)))
    found: list[NDArray[np.float64]] = []
    for colour in (lab, other):
        a, b = stretch * colour[..., 1], colour[..., 2]
        found += [colour[..., 0], np.hypot(a, b), np.arctan2(b, a) % (2 * np.pi)]
    return tuple(found)


def _mean_hue(h1: NDArray[np.float64], h2: NDArray[np.float64]) -> NDArray[np.float64]:
    """Equation 14: half the sum, moved by half a turn where the hues are more than half a turn apart."""
    total = h1 + h2
    apart = np.abs(h1 - h2) > np.pi
    return (total + np.where(apart, np.where(total < 2 * np.pi, 2 * np.pi, -2 * np.pi), 0)) / 2
