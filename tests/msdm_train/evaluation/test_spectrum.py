from __future__ import annotations

import numpy as np

from msdm_train.evaluation.spectrum import EDGES, by_band, mean_power


def test_twice_the_contrast_is_twice_the_amplitude_in_each_band() -> None:
    rng = np.random.default_rng(0)
    quiet = [rng.integers(120, 136, (32, 32, 3), dtype=np.uint8) for _ in range(2)]
    loud = [(128 + 2 * (picture.astype(int) - 128)).astype(np.uint8) for picture in quiet]
    ratios = by_band(mean_power(loud, np.eye(3)), mean_power(quiet, np.eye(3)))
    assert np.shape(ratios) == (3, len(EDGES) - 1)
    np.testing.assert_allclose(ratios, 2, rtol=0, atol=6e-4)  # rounded to three places


def test_lines_one_pixel_wide_are_in_the_band_of_nyquist_alone() -> None:
    rng = np.random.default_rng(1)
    plain = [rng.integers(100, 156, (32, 32, 3), dtype=np.uint8)]
    lined = [plain[0] + np.where(np.arange(32) % 2, 0, 60).astype(np.uint8)[None, :, None]]
    ratios = np.array(by_band(mean_power(lined, np.eye(3)), mean_power(plain, np.eye(3))))
    # A Hann window leaks one bin (1 / 32) to either side of 0.5 cycles a pixel: into [0.42, 0.5) and [0.5, 0.71).
    assert (ratios[:, 5:] > 2).all()
    # What a symmetric Hann window of 32 leaks further out: below a hundredth.
    np.testing.assert_allclose(ratios[:, :5], 1, rtol=0, atol=1e-2)
