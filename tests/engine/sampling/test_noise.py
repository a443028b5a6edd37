from __future__ import annotations

import hashlib
import math
from statistics import NormalDist

import numpy as np
import pytest

from msdm_engine.errors import RequestError
from msdm_engine.sampling.noise import exact_log, gaussian, normal_from_uniform, philox4x32, uniform

#: Known answers of philox4x32-10 from Random123's kat_vectors: counter, key, result.
KNOWN_ANSWERS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]

#: One set of draws for all moments; its size decides the tolerances below.
DRAWS = gaussian(seed=7, sample=3, step=2, channels=6, height=128, width=128).astype(np.float64).ravel()


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_philox_gives_the_known_answers(
    counter: tuple[int, ...], key: tuple[int, int], expected: tuple[int, ...]
) -> None:
    words = philox4x32(tuple(np.array([word], np.uint32) for word in counter), key)
    assert tuple(int(word[0]) for word in words) == expected


def test_philox_works_on_arrays_as_on_numbers() -> None:
    counters = np.array([counter for counter, key, _ in KNOWN_ANSWERS if key == (0, 0)], np.uint32)
    many = np.concatenate([counters, [[1, 2, 3, 4]], counters]).astype(np.uint32)
    words = np.stack(philox4x32(tuple(many.T), (0, 0)), 1)
    assert np.array_equal(words[0], words[2])
    assert words[0].tolist() == list(KNOWN_ANSWERS[0][2])
    assert not np.array_equal(words[0], words[1])


# --- frozen: sample i of a seed is the same sample for ever; never change these values -------------------------


FROZEN_GAUSSIAN = [
    "0x1.0880080000000p-3", "0x1.5a7c260000000p-2", "0x1.49584a0000000p-2", "-0x1.9a48bc0000000p-3",
    "-0x1.da70e60000000p-1", "0x1.a9c93e0000000p-2", "0x1.eb93c40000000p-2", "0x1.e930f00000000p-2",
    "0x1.75214e0000000p+0", "0x1.4054f40000000p+1", "0x1.e353980000000p-1", "0x1.4a1a300000000p-1",
]  # fmt: skip
FROZEN_ARRAY = "0834113dd6245e98a8135557bec2d41fcd14da73e53974843867e750fdebf925"
FROZEN_UNIFORM = [
    "0x1.519be12f00000p-1", "0x1.b0b3048500000p-1", "0x1.f3fa5edc00000p-3", "0x1.e49aaa9800000p-4",
    "0x1.ea9bcfc600000p-2",
]  # fmt: skip


def test_gaussian_is_frozen() -> None:
    noise = gaussian(seed=1, sample=2, step=3, channels=2, height=2, width=3)
    assert noise.dtype == np.float32
    assert [value.hex() for value in noise.ravel().tolist()] == FROZEN_GAUSSIAN


def test_a_whole_array_is_frozen() -> None:
    noise = gaussian(seed=2**64 - 1, sample=2**32 - 1, step=17, channels=6, height=64, width=50)
    assert hashlib.sha256(noise.astype("<f4").tobytes()).hexdigest() == FROZEN_ARRAY


def test_uniform_is_frozen() -> None:
    assert [value.hex() for value in uniform(seed=1, sample=2, stream=3, count=5).tolist()] == FROZEN_UNIFORM


def philox_of_integers(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """Philox4x32-10 as in figure 2 of Salmon et al. 2011, on Python's integers."""
    a, b, c, d = counter
    k0, k1 = key
    for _ in range(10):
        p, q = 0xD2511F53 * a, 0xCD9E8D57 * c
        a, b, c, d = (q >> 32) ^ b ^ k0, q & 0xFFFFFFFF, (p >> 32) ^ d ^ k1, p & 0xFFFFFFFF
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return a, b, c, d


@pytest.mark.parametrize(("channel", "y", "x"), [(0, 0, 0), (1, 2, 3), (5, 30, 17), (3, 31, 18)])
def test_a_value_follows_from_its_key(channel: int, y: int, x: int) -> None:
    seed, sample, step = 0x0123456789ABCDEF, 77, 12
    words = philox_of_integers((x // 4, y, channel + (step << 8), sample), (seed & 0xFFFFFFFF, seed >> 32))
    expected = NormalDist().inv_cdf((words[x % 4] + 0.5) / 2**32)
    # Both are accurate to 1e-15, so they round to the same or to neighbouring float32 (2^-23 apart).
    assert gaussian(seed, sample, step, 6, 32, 19)[channel, y, x] == pytest.approx(expected, rel=2**-23)


# --- a pure function of (seed, sample, step, channel, y, x) ---------------------------------------------------


def test_a_small_picture_is_the_corner_of_a_large_one() -> None:
    large = gaussian(5, 1, 0, channels=6, height=70, width=65)
    for channels, height, width in ((6, 70, 64), (3, 33, 7), (1, 1, 1)):
        assert np.array_equal(gaussian(5, 1, 0, channels, height, width), large[:channels, :height, :width])


def test_few_uniforms_begin_many() -> None:
    many = uniform(1, 2, 3, 13)
    assert all(np.array_equal(uniform(1, 2, 3, count), many[:count]) for count in range(13))


def test_every_part_of_the_key_changes_all_values() -> None:
    base = {"seed": 5, "sample": 1, "step": 0, "channels": 2, "height": 32, "width": 32}
    reference = gaussian(**base)
    others = [
        gaussian(**{**base, name: base[name] + by})
        for name, by in (("seed", 1), ("seed", 2**32), ("seed", 2**63), ("sample", 1), ("step", 1), ("step", 256))
    ]
    # 2,048 values of 32 bits each: an equal one at the same place in one of six arrays has probability 3e-6.
    assert all((other != reference).all() for other in others)
    assert (reference[0] != reference[1]).all()


@pytest.mark.parametrize("other", [{"sample": 4}, {"step": 3}, {"seed": 8}])
def test_other_keys_are_uncorrelated(other: dict[str, int]) -> None:
    key = {"seed": 7, "sample": 3, "step": 2} | other
    second = gaussian(**key, channels=6, height=128, width=128).ravel()
    # The correlation of n independent pairs has standard deviation 1/sqrt(n); five of them is one case in a million.
    assert abs(np.mean(DRAWS * second)) < 5 / math.sqrt(DRAWS.size)


def test_channels_and_neighbours_are_uncorrelated() -> None:
    channels = DRAWS.reshape(6, 128, 128)
    for first, second in (
        (channels[0], channels[1]),
        (channels[:, 1:], channels[:, :-1]),
        (channels[:, :, 1:], channels[:, :, :-1]),
    ):
        assert abs(np.mean(first * second)) < 5 / math.sqrt(first.size)


def test_choices_share_no_bits_with_noise() -> None:
    # Noise has the row number in the second counter word, choices a number beyond every row.
    choices = normal_from_uniform(uniform(7, 3, 0, 128)).astype(np.float32)
    assert not set(choices.tolist()) & set(gaussian(7, 3, 0, 1, 64, 128).ravel().tolist())


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ({"seed": -1}, "seed"),
        ({"seed": 2**64}, "seed"),
        ({"sample": -1}, "sample"),
        ({"sample": 2**32}, "sample"),
        ({"step": 2**24}, "step"),
        ({"channels": 257}, "channels"),
    ],
)
def test_a_key_out_of_range_is_refused(key: dict[str, int], name: str) -> None:
    with pytest.raises(RequestError, match=name):
        gaussian(**({"seed": 0, "sample": 0, "step": 0, "channels": 1, "height": 1, "width": 1} | key))


@pytest.mark.parametrize("key", [{"seed": -1}, {"sample": 2**32}, {"stream": -1}, {"stream": 2**16}])
def test_a_choice_out_of_range_is_refused(key: dict[str, int]) -> None:
    with pytest.raises(RequestError, match=next(iter(key))):
        uniform(**({"seed": 0, "sample": 0, "stream": 0, "count": 1} | key))


# --- the distribution ------------------------------------------------------------------------------------------


def test_moments_are_those_of_a_normal_distribution() -> None:
    n = DRAWS.size
    # Standard deviations of the mean, variance, skewness and kurtosis of n normal values, times five.
    assert abs(DRAWS.mean()) < 5 / math.sqrt(n)
    assert abs(DRAWS.var() - 1) < 5 * math.sqrt(2 / n)
    assert abs(np.mean(DRAWS**3)) < 5 * math.sqrt(15 / n)
    assert abs(np.mean(DRAWS**4) - 3) < 5 * math.sqrt(96 / n)


def test_the_distribution_function_is_normal() -> None:
    n = DRAWS.size
    cdf = np.array([NormalDist().cdf(value) for value in np.sort(DRAWS)])
    steps = np.arange(n + 1) / n
    distance = max(np.max(steps[1:] - cdf), np.max(cdf - steps[:-1]))
    # Kolmogorov-Smirnov: P(distance > c / sqrt(n)) <= 2 exp(-2 c^2) (Dvoretzky-Kiefer-Wolfowitz-Massart): 3e-6 at 2.6.
    assert distance < 2.6 / math.sqrt(n)


def test_uniform_is_uniform_in_the_open_interval() -> None:
    values = uniform(3, 1, 0, 50_000)
    n = values.size
    assert values.min() > 0 and values.max() < 1
    steps = np.arange(n + 1) / n
    ordered = np.sort(values)
    assert max(np.max(steps[1:] - ordered), np.max(ordered - steps[:-1])) < 2.6 / math.sqrt(n)


# --- accuracy --------------------------------------------------------------------------------------------------


def test_the_inverse_normal_distribution_is_accurate() -> None:
    smallest = 0.5 / 2**32  # and its mirror are the ends of what 32 bits give
    p = np.concatenate([(np.arange(4096) + 0.5) / 4096, [smallest, 1 - smallest], 10.0 ** -np.arange(1, 300, 7.0)])
    exact = np.array([NormalDist().inv_cdf(value) for value in p])
    # AS 241 states about 1e-16; a dozen roundings of 1.1e-16 each, of which some cancel, are below 2e-15.
    assert np.max(np.abs(normal_from_uniform(p) - exact) / np.abs(exact)) < 2e-15


def test_the_inverse_normal_distribution_is_odd_and_zero_in_the_middle() -> None:
    p = (np.arange(1, 2**10) + 0.0) / 2**11  # p and 1 - p are both exact
    assert np.array_equal(normal_from_uniform(1 - p), -normal_from_uniform(p))
    assert normal_from_uniform(np.array([0.5])) == 0


def test_the_logarithm_is_accurate() -> None:
    x = np.concatenate([2.0 ** np.linspace(-1000, 1000, 2001), 1 + np.linspace(-0.5, 0.5, 4001)])
    exact = np.array([math.log(value) for value in x])
    error = np.abs(exact_log(x) - exact)
    # A few roundings of the result, and next to 1, where it is about s, none that is absolute.
    assert np.all(error <= 1e-15 * np.abs(exact))
