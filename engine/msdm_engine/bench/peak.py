"""The matrix peak of this machine for given products: NumPy's BLAS, single precision, one product after the other.

A process of its own, because a BLAS takes its number of threads when it is loaded. The patches of a convolution are
there already: no time is counted for gathering them, so the bound is one that no convolution reaches this way.
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np

#: Each product is repeated until it took so long, and at least three times; the fastest counts.
LEAST_S, LEAST_REPEATS = 0.05, 3


def fastest_s(m: int, k: int, n: int) -> float:
    """Seconds of [m, k] times [k, n] in float32, checked on one value."""
    generator = np.random.default_rng(0)
    a, b = (generator.standard_normal(shape, np.float32) for shape in ((m, k), (k, n)))
    out = a @ b
    # Float32 sums of k products of standard normal values: error some 1e-7 sqrt(k) of values of size sqrt(k).
    assert abs(float(out[-1, -1]) - float(a[-1].astype(float) @ b[:, -1].astype(float))) < 1e-5 * k
    seconds: list[float] = []
    while len(seconds) < LEAST_REPEATS or sum(seconds) < LEAST_S:
        begin = time.perf_counter()
        np.matmul(a, b, out=out)
        seconds.append(time.perf_counter() - begin)
    return min(seconds)


def main() -> None:
    """Products as ``[[m, k, n, times], ...]`` from standard input; all of them in seconds to standard output."""
    products = json.load(sys.stdin)
    print(json.dumps({"seconds": sum(times * fastest_s(m, k, n) for m, k, n, times in products)}))


if __name__ == "__main__":
    main()
