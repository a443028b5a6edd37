"""Counter-based Gaussian noise, equal to the bit on every machine and in every batch, shard and order.

A value is a pure function of (seed, sample, step, channel, y, x): Philox4x32-10 (Salmon et al. 2011, *Parallel
random numbers: as easy as 1, 2, 3*) turns these into 32 random bits, and the inverse normal distribution
(Wichura 1988, AS 241, PPND16) turns the bits into a normal value. The latter uses +, -, *, / and square root
only, which IEEE 754 rounds exactly; NumPy's own log or cos differ in the last bit from one processor to another.
"""

from __future__ import annotations

import numpy as np

from msdm_engine.errors import RequestError

_MULTIPLIER = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (np.uint32(0x9E3779B9), np.uint32(0xBB67AE85))
_LOW = np.uint64(0xFFFFFFFF)
#: Steps of one attempt lie below 2^16; a trajectory has at most 1,000.
_ATTEMPT_BITS = 16
#: Values that are made normal at once: few enough for the processor's cache, and so many that the some hundred calls of
#: NumPy for each block take less time than the arithmetic.
_BLOCK = 16384
#: Attempts at one pair, the first one included.
MAX_ATTEMPTS = 256


def philox4x32(counter: tuple[np.ndarray, ...], key: tuple[int, int], rounds: int = 10) -> tuple[np.ndarray, ...]:
    """Philox4x32: four uint32 counter words (arrays that broadcast) -> four uint32 random words."""
    c0, c1, c2, c3 = (word.astype(np.uint32) for word in np.broadcast_arrays(*counter))
    k0, k1 = np.uint32(key[0]), np.uint32(key[1])
    for _ in range(rounds):
        p0, p1 = _MULTIPLIER[0] * c0, _MULTIPLIER[1] * c2  # uint64 products of 32-bit words
        c0, c1, c2, c3 = (
            (p1 >> np.uint64(32)).astype(np.uint32) ^ c1 ^ k0,
            (p1 & _LOW).astype(np.uint32),
            (p0 >> np.uint64(32)).astype(np.uint32) ^ c3 ^ k1,
            (p0 & _LOW).astype(np.uint32),
        )
        with np.errstate(over="ignore"):  # the key schedule is a sum modulo 2^32
            k0, k1 = k0 + _WEYL[0], k1 + _WEYL[1]
    return c0, c1, c2, c3


def gaussian(seed: int, sample: int, step: int, channels: int, height: int, width: int) -> np.ndarray:
    """Standard normal noise of one sample at one step (0: initial state; i: noise added by step i).

    A larger picture of the same seed continues a smaller one: the value at (channel, y, x) does not depend on size.

    Args:
        seed: 0 to 2^64 - 1.
        sample: index of the pair in its set, 0 to 2^32 - 1.
        step: 0 to 2^24 - 1.
        channels: 1 to 256.

    Returns:
        [channels, height, width] float32.

    Raises:
        RequestError: seed, sample, step or channels out of range.
    """
    _check_bits(seed=(seed, 64), sample=(sample, 32), step=(step, 24), channels=(channels - 1, 8))
    blocks = -(-width // 4)
    x = np.arange(blocks, dtype=np.uint32)[None, None, :]
    y = np.arange(height, dtype=np.uint32)[None, :, None]
    # Channel in the low byte, step above it: 256 channels, 2^24 steps.
    c = (np.arange(channels, dtype=np.uint32) + np.uint32(step << 8))[:, None, None]
    words = philox4x32((x, y, c, np.full((1, 1, 1), sample, np.uint32)), (seed & 0xFFFFFFFF, seed >> 32))
    drawn = np.stack(words, -1).reshape(channels, height, 4 * blocks)[:, :, :width]
    return normal_from_uniform((drawn.astype(np.float64) + 0.5) / 2.0**32).astype(np.float32)


def step_of_attempt(attempt: int, step: int) -> int:
    """``step`` of :func:`gaussian` for another attempt at the same sample: attempt * 2^16 + step.

    Attempt 0 has the noise of the sample itself, and no attempt shares a value with another.

    Args:
        attempt: 0 to 255.
        step: 0 to 2^16 - 1.

    Raises:
        RequestError: either is out of range.
    """
    _check_bits(attempt=(attempt, 8), step=(step, _ATTEMPT_BITS))
    return (attempt << _ATTEMPT_BITS) + step


def uniform(seed: int, sample: int, stream: int, count: int) -> np.ndarray:
    """[count] float64 in (0, 1) for choices about a sample (colour jitter, edits).

    Args:
        seed, sample: as for :func:`gaussian`, out of range likewise a RequestError.
        stream: 0 to 65535; separates the uses.
        count: how many; more continue fewer.
    """
    _check_bits(seed=(seed, 64), sample=(sample, 32), stream=(stream, 16))
    c = np.arange(-(-count // 4), dtype=np.uint32)
    # The second word is beyond any row number of a picture, so that no choice shares its bits with noise.
    words = philox4x32(
        (c, np.full_like(c, 0xFFFF0000 + stream), np.zeros_like(c), np.full_like(c, sample)),
        (seed & 0xFFFFFFFF, seed >> 32),
    )
    return (np.stack(words, -1).reshape(-1)[:count].astype(np.float64) + 0.5) / 2.0**32


def _check_bits(**named: tuple[int, int]) -> None:
    """Each value must fit its number of bits, or it would share its noise with another."""
    for name, (value, bits) in named.items():
        if not 0 <= value < 2**bits:
            raise RequestError(f"{name} {value} is out of range", note=f"0 to 2^{bits} - 1")


def exact_log(x: np.ndarray) -> np.ndarray:
    """Natural logarithm to about 1e-15 by exactly rounded operations: ln(m 2^e) = e ln 2 + 2 artanh((m-1)/(m+1))."""
    mantissa, exponent = np.frexp(x)
    small = mantissa < 0.7071067811865476
    mantissa, exponent = np.where(small, 2 * mantissa, mantissa), exponent - small
    s = (mantissa - 1) / (mantissa + 1)
    square, series = s * s, np.zeros_like(s)
    for n in range(23, 0, -2):  # |s| <= 0.172: the next term is below 1e-19
        series *= square
        series += 1.0 / n
    return exponent * 0.6931471805599453 + 2 * s * series


def _ratio(numerator: tuple[float, ...], denominator: tuple[float, ...], r: np.ndarray) -> np.ndarray:
    """Quotient of two polynomials, by Horner's rule in place."""
    top, bottom = np.full_like(r, numerator[0]), np.full_like(r, denominator[0])
    for a, b in zip(numerator[1:], denominator[1:], strict=True):
        for value, coefficient in ((top, a), (bottom, b)):
            value *= r
            value += coefficient
    top /= bottom
    return top


# Coefficients of AS 241 (PPND16), highest power first.
_A = (2509.0809287301226727, 33430.575583588128105, 67265.770927008700853, 45921.953931549871457,
      13731.693765509461125, 1971.5909503065514427, 133.14166789178437745, 3.387132872796366608)  # fmt: skip
_B = (5226.495278852854561, 28729.085735721942674, 39307.89580009271061, 21213.794301586595867,
      5394.1960214247511077, 687.1870074920579083, 42.313330701600911252, 1.0)  # fmt: skip
_C = (7.7454501427834140764e-4, 0.0227238449892691845833, 0.24178072517745061177, 1.27045825245236838258,
      3.64784832476320460504, 5.7694972214606914055, 4.6303378461565452959, 1.42343711074968357734)  # fmt: skip
_D = (1.05075007164441684324e-9, 5.475938084995344946e-4, 0.0151986665636164571966, 0.14810397642748007459,
      0.68976733498510000455, 1.6763848301838038494, 2.05319162663775882187, 1.0)  # fmt: skip
_E = (2.01033439929228813265e-7, 2.71155556874348757815e-5, 0.0012426609473880784386, 0.026532189526576123093,
      0.29656057182850489123, 1.7848265399172913358, 5.4637849111641143699, 6.6579046435011037772)  # fmt: skip
_F = (2.04426310338993978564e-15, 1.4215117583164458887e-7, 1.8463183175100546818e-5, 7.868691311456132591e-4,
      0.0148753612908506148525, 0.13692988092273580531, 0.59983220655588793769, 1.0)  # fmt: skip


def normal_from_uniform(p: np.ndarray) -> np.ndarray:
    """Inverse of the standard normal distribution for p in (0, 1), float64, relative error about 1e-16."""
    out = np.empty(p.shape)
    flat, into = p.reshape(-1), out.reshape(-1)
    for start in range(0, flat.size, _BLOCK):
        at = slice(start, start + _BLOCK)
        into[at] = _normal(flat[at])
    return out


def _normal(p: np.ndarray) -> np.ndarray:
    q = p - 0.5
    out = q * _ratio(_A, _B, 0.180625 - q * q)
    tail = np.flatnonzero(np.abs(q) > 0.425)
    if tail.size:
        p, q = p[tail], q[tail]
        r = np.sqrt(-exact_log(np.minimum(p, 1 - p)))
        value = _ratio(_C, _D, r - 1.6)
        far = r > 5
        if far.any():  # of 32 random bits none is
            value[far] = _ratio(_E, _F, r[far] - 5)
        out[tail] = np.copysign(value, q)
    return out
