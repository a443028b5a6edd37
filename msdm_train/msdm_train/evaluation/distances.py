"""Distances between two clouds of embeddings. Each returns a value object that names its criterion.

All are biased by the number of points, the Wasserstein and Frechet distances strongly: only values of equal n, and of
equal n on both sides, may be compared.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import ot
import scipy.linalg
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from msdm_engine.errors import InputError

Points = NDArray[np.float64]


@dataclass(frozen=True)
class Distance:
    """A distance.

    Args:
        value: the distance.
        n: points on either side (the smaller number where they differ).
        dimensions: of the embeddings.
        criterion: what it is, with its source.
        warning: why it should not be trusted; empty where nothing speaks against it.
    """

    value: float
    n: int
    dimensions: int
    criterion: str
    warning: str = ""

    def to_json(self) -> dict[str, Any]:
        """Its parts."""
        return asdict(self)


@dataclass(frozen=True)
class Neighbourhood:
    """How far the clouds cover each other, by k-nearest-neighbour balls.

    Args:
        precision: share of generated points within a ball of a real one, in [0, 1].
        recall: share of real points within a ball of a generated one, in [0, 1].
        density: balls of real points that hold a generated one, over k; may exceed 1.
        coverage: share of real balls that hold a generated point, in [0, 1].
        n: points on either side.
        k_recall, k_coverage: nearest neighbours of the first two and of the last two.
    """

    precision: float
    recall: float
    density: float
    coverage: float
    n: int
    k_recall: int
    k_coverage: int
    criterion: str = "precision and recall: Kynkaanniemi et al. 2019; density and coverage: Naeem et al. 2020"

    def to_json(self) -> dict[str, Any]:
        """Its parts."""
        return asdict(self)


def wasserstein2(a: Points, b: Points) -> Distance:
    """Exact 2-Wasserstein distance of two clouds with equal weights, by linear programming (POT, ``ot.emd2``).

    Args:
        a: [n, D].
        b: [m, D].

    Raises:
        InputError: a cloud is empty, or they differ in D.
    """
    _check(a, b)
    value = wasserstein2_of_costs(cdist(a, b, "sqeuclidean"))
    return Distance(value, min(len(a), len(b)), a.shape[1], "2-Wasserstein, exact, squared Euclidean cost, root")


def wasserstein2_of_costs(costs: Points) -> float:
    """The same from the [n, m] squared Euclidean distances."""
    # Equal weights; the root of a sum that rounding may have left below zero.
    return float(np.sqrt(max(float(ot.emd2([], [], np.ascontiguousarray(costs))), 0.0)))


def frechet(a: Points, b: Points) -> Distance:
    """Frechet distance of the Gaussians with the clouds' means and covariances (Dowson and Landau 1982; Heusel et al.
    2017): the root of ``|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2))``.

    Raises:
        InputError: fewer than two points, or they differ in D.
    """
    _check(a, b, at_least=2)
    covariances = [np.atleast_2d(np.cov(x, rowvar=False)) for x in (a, b)]
    # Eigenvalues of the product are those of a positive semi-definite matrix: what is imaginary is rounding.
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1]).real
    squared = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(covariances[0] + covariances[1] - 2 * root)
    n, d = min(len(a), len(b)), a.shape[1]
    warning = (
        f"{n} points leave a covariance of {d} dimensions singular; read it beside its floor only" if n <= d else ""
    )
    return Distance(float(np.sqrt(max(squared, 0.0))), n, d, "Frechet distance of fitted Gaussians, root", warning)


def kernel_distance(a: Points, b: Points) -> Distance:
    """Squared maximum mean discrepancy, unbiased, with the kernel ``(x.y / D + 1)^3`` (KID, Binkowski et al. 2018).

    It may be negative: its expectation is zero for equal distributions.

    Raises:
        InputError: fewer than two points, or they differ in D.
    """
    _check(a, b, at_least=2)
    return Distance(
        kernel_distance_of(kernel(a, a), kernel(b, b), kernel(a, b), np.arange(len(a)), np.arange(len(b))),
        min(len(a), len(b)),
        a.shape[1],
        "KID: unbiased squared MMD, polynomial kernel of degree 3",
    )


def kernel(a: Points, b: Points) -> Points:
    """[n, m] polynomial kernel of the KID."""
    return (a @ b.T / a.shape[1] + 1) ** 3


def kernel_distance_of(aa: Points, bb: Points, ab: Points, i: NDArray[np.int64], j: NDArray[np.int64]) -> float:
    """KID of the points ``i`` of the one and ``j`` of the other cloud, from kernel values.

    A point that a bootstrap drew twice is not compared with itself, so that the estimate stays unbiased; nan where
    that leaves no pair.
    """

    def within(k: Points, index: NDArray[np.int64]) -> float:
        different = index[:, None] != index[None]
        return float(k[np.ix_(index, index)][different].mean()) if different.any() else np.nan

    return within(aa, i) + within(bb, j) - 2 * float(ab[np.ix_(i, j)].mean())


def neighbourhood(real: Points, generated: Points, *, k_recall: int = 3, k_coverage: int = 5) -> Neighbourhood:
    """Precision and recall, density and coverage; a ball of a point reaches to its k-th nearest of its own cloud.

    Args:
        real, generated: [n, D] and [m, D].
        k_recall, k_coverage: as in the two papers.

    Raises:
        InputError: no more than k points on a side, or they differ in D.
    """
    _check(real, generated, at_least=max(k_recall, k_coverage) + 1)
    across = cdist(real, generated)
    radius = {k: (_radius(real, k), _radius(generated, k)) for k in (k_recall, k_coverage)}
    of_real, of_generated = radius[k_recall]
    inside = across <= radius[k_coverage][0][:, None]
    return Neighbourhood(
        precision=float((across <= of_real[:, None]).any(0).mean()),
        recall=float((across <= of_generated[None]).any(1).mean()),
        density=float(inside.sum(0).mean() / k_coverage),
        coverage=float(inside.any(1).mean()),
        n=min(len(real), len(generated)),
        k_recall=k_recall,
        k_coverage=k_coverage,
    )


def _radius(points: Points, k: int) -> Points:
    """[n] distance to the k-th nearest other point."""
    return np.partition(cdist(points, points), k, axis=1)[:, k]  # the 0th is the point itself


def _check(a: Points, b: Points, at_least: int = 1) -> None:
    if min(len(a), len(b)) < at_least:
        raise InputError(
            f"{len(a)} and {len(b)} pictures are compared",
            note=f"legal: {at_least} or more on either side",
            hint="ask for more seeds or smaller windows, or use a data set with more fields",
        )
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise InputError(
            f"embeddings of shape {list(a.shape)} and {list(b.shape)} are compared", note="legal: [n, D] and [m, D]"
        )
