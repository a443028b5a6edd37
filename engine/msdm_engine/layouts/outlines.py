"""Bank of real nuclear outlines as elliptic Fourier descriptors, and the shapes drawn from it.

Descriptors: Kuhl & Giardina, *Elliptic Fourier features of a closed contour*, Computer Graphics and Image
Processing 18 (1982) 236-258. With n = 1..N harmonics and t in [0, 1), an outline is

    x(t) = sum_n a_n cos 2 pi n t + b_n sin 2 pi n t
    y(t) = sum_n c_n cos 2 pi n t + d_n sin 2 pi n t

The bank is fitted by ``msdm_train.outlines`` and ships as one JSON file; descriptors in it are normalised for
translation, starting point, rotation (long axis along x) and size (unit area).
"""

from __future__ import annotations

import base64
import binascii
import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from msdm_engine.errors import BundleError, RequestError, nearest

FORMAT = "msdm-outlines/1"
BANK_PATH = Path(__file__).with_name("outlines.json")

#: Vertices of a drawn outline: 8 harmonics hold 16 extrema, so 48 vertices put three between any two of them.
VERTICES = 48

#: cv2.fillPoly also fills the pixels that the outline runs through: a filled shape is this much larger on every
#: side than its polygon (0.47 to 0.6 px measured for half axes of 3 to 20 px).
FILL_MARGIN_PX = 0.5

#: An outline is taken from this many neighbours (below and above) of the aspect ratio asked for, so that shapes
#: are stretched little and still vary.
ASPECT_NEIGHBOURS = 24

#: Half axes of a drawn polygon never fall below this, else thin nuclei would break into loose pixels.
MIN_HALF_AXIS_PX = 0.75


@dataclass(frozen=True)
class OutlineBank:
    """Normalised outlines, grouped by architecture.

    Args:
        coefficients: for each architecture [n, harmonics, 4] float32, last axis (a, b, c, d).
        licence, source: of the masks that the outlines come from.
    """

    coefficients: Mapping[str, NDArray[np.float32]]
    licence: str
    source: str

    def to_json(self) -> str:
        """The bank as JSON; descriptors are base64 of little-endian float16 (relative error below 0.05 %)."""
        groups = {}
        for name, values in sorted(self.coefficients.items()):
            blob = base64.b64encode(values.astype("<f2").tobytes()).decode("ascii")
            groups[name] = {"count": len(values), "coefficients": blob}
        harmonics = next(iter(self.coefficients.values())).shape[1]
        head = {"format": FORMAT, "licence": self.licence, "source": self.source}
        form = {"dtype": "<f2", "harmonics": harmonics, "layout": "count x harmonics x (a, b, c, d), unit area"}
        return json.dumps({**head, **form, "groups": groups}, indent=1) + "\n"


def load_bank(path: Path = BANK_PATH) -> OutlineBank:
    """Reads and checks a bank.

    Raises:
        BundleError: the file is missing, not JSON, of another format, or its values do not fit their counts.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BundleError(f"no outline bank at {path}", hint="reinstall msdm") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BundleError(f"outline bank {path} is not JSON", note=str(error), hint="reinstall msdm") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        seen = record.get("format") if isinstance(record, dict) else type(record).__name__
        raise BundleError(f"outline bank {path} has the format {seen!r}", note=f"legal: {FORMAT}")
    try:
        harmonics, groups = int(record["harmonics"]), dict(record["groups"])
        coefficients = {name: _decoded(group, harmonics) for name, group in groups.items()}
        return OutlineBank(coefficients, str(record["licence"]), str(record["source"]))
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise BundleError(f"outline bank {path} is damaged", note=repr(error), hint="reinstall msdm") from error


def _decoded(group: Mapping[str, object], harmonics: int) -> NDArray[np.float32]:
    values = np.frombuffer(base64.b64decode(str(group["coefficients"]), validate=True), "<f2").astype(np.float32)
    values = values.reshape(int(str(group["count"])), harmonics, 4)
    if not len(values) or not np.isfinite(values).all():
        raise ValueError("a group is empty or holds a value that is not finite")
    return values


@functools.lru_cache(maxsize=1)
def default_bank() -> OutlineBank:
    """The bank that ships with the engine, read on first use."""
    return load_bank()


@dataclass(frozen=True)
class Shapes:
    """Outlines ready to draw, sorted by aspect ratio.

    Args:
        points: [n, VERTICES, 2] float64 (x, y): centroid at the origin, principal long axis along x, area one.
        aspect_ratio: [n] float64, ascending.
    """

    points: NDArray[np.float64]
    aspect_ratio: NDArray[np.float64]

    def polygons(
        self,
        rng: np.random.Generator,
        area_px: NDArray[np.float64],
        aspect_ratio: NDArray[np.float64],
        angle: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        """Outlines with the areas, aspect ratios and long-axis angles asked for, around the origin.

        Args:
            rng: picks the outline, and whether it is mirrored along or across its long axis.
            area_px: [n] pixels, filled.
            aspect_ratio: [n], ratio of the principal axes, at least one.
            angle: [n] radians, from +x (right) towards +y (down).

        Returns:
            [n, VERTICES, 2] float64 (x, y) in pixels.
        """
        n, last = len(area_px), len(self.points) - 1
        near = np.searchsorted(self.aspect_ratio, aspect_ratio)
        pick = np.clip(near + rng.integers(-ASPECT_NEIGHBOURS, ASPECT_NEIGHBOURS + 1, n), 0, last)
        # Half axes of the ellipse with these moments: area = pi * a * b, aspect ratio = a / b.
        long = np.sqrt(area_px * aspect_ratio / np.pi)
        short = long / aspect_ratio
        own = self.aspect_ratio[pick]
        unit_long, unit_short = np.sqrt(own / np.pi), np.sqrt(1 / (own * np.pi))
        flip = rng.choice([-1.0, 1.0], (n, 2))
        x = self.points[pick, :, 0] * (flip[:, 0] * _drawn_half_axis(long) / unit_long)[:, None]
        y = self.points[pick, :, 1] * (flip[:, 1] * _drawn_half_axis(short) / unit_short)[:, None]
        cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
        return np.stack([x * cos - y * sin, x * sin + y * cos], axis=2)


def _drawn_half_axis(half_axis: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.maximum(half_axis - FILL_MARGIN_PX, MIN_HALF_AXIS_PX)


def shapes_from_bank(bank: OutlineBank, architecture: str, *, elongated_from_others: float | None = None) -> Shapes:
    """The outlines of one architecture as polygons.

    Args:
        bank: of any harmonics.
        architecture: a group of the bank.
        elongated_from_others: also take outlines of the other groups whose aspect ratio is at least this
            (spindle tiles are few, and hold few nuclei).

    Raises:
        RequestError: the bank has no such group.
    """
    if architecture not in bank.coefficients:
        raise RequestError(
            f"the outline bank has no architecture '{architecture}'", note=nearest(architecture, bank.coefficients)
        )
    points, aspect = _canonical(bank.coefficients[architecture])
    if elongated_from_others is not None:
        for name in sorted(set(bank.coefficients) - {architecture}):
            more, ratio = _canonical(bank.coefficients[name])
            keep = ratio >= elongated_from_others
            points, aspect = np.concatenate([points, more[keep]]), np.concatenate([aspect, ratio[keep]])
    order = np.argsort(aspect, kind="stable")
    return Shapes(points[order], aspect[order])


def points_from_descriptors(coefficients: NDArray[np.floating], vertices: int = VERTICES) -> NDArray[np.float64]:
    """[n, harmonics, 4] descriptors -> [n, vertices, 2] float64 (x, y), evenly spaced in the parameter t."""
    harmonics = coefficients.shape[1]
    phase = 2 * np.pi * np.outer(np.arange(1, harmonics + 1), np.arange(vertices) / vertices)
    waves = np.stack([np.cos(phase), np.sin(phase)], axis=1)
    pairs = coefficients.astype(np.float64).reshape(-1, harmonics, 2, 2)
    return np.einsum("nhkw,hwv->nvk", pairs, waves)


def _canonical(coefficients: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Polygons with centroid at the origin, principal axis along x and unit area; and their aspect ratios."""
    points = points_from_descriptors(coefficients)
    area, centroid, covariance = polygon_moments(points)
    points = (points - centroid[:, None]) / np.sqrt(area)[:, None, None]
    values, vectors = np.linalg.eigh(covariance)
    points = points @ vectors[:, :, ::-1]
    return points, np.sqrt(values[:, 1] / values[:, 0])


def polygon_moments(
    points: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Area [n], centroid [n, 2] and covariance [n, 2, 2] of closed polygons [n, v, 2], by Green's theorem."""
    origin = points.mean(axis=1, keepdims=True)
    p = points - origin
    q = np.roll(p, -1, axis=1)
    cross = p[..., 0] * q[..., 1] - q[..., 0] * p[..., 1]
    signed = cross.sum(axis=1) / 2
    centroid = np.einsum("nv,nvk->nk", cross, p + q) / (6 * signed[:, None])
    both = np.einsum("nv,nvj,nvk->njk", cross, p, p) + np.einsum("nv,nvj,nvk->njk", cross, q, q)
    mixed = np.einsum("nv,nvj,nvk->njk", cross, p, q)
    second = (2 * both + mixed + mixed.transpose(0, 2, 1)) / (24 * signed[:, None, None])
    covariance = second - centroid[:, :, None] * centroid[:, None, :]
    return np.abs(signed), centroid + origin[:, 0], covariance
