from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from msdm_engine.errors import RequestError
from msdm_train.model.config import preset
from msdm_train.model.detail import FINEST_NOISE_SHARE, NOISE_SHARE, Detail, detail_bands, finest, second_differences

CONFIG = replace(preset("tiny"), detail_std=(0.03, 0.02, 0.01, 0.006, 0.005, 0.004, 0.003, 0.004, 0.002))


@pytest.mark.parametrize("cycles", [(1, 0), (0, 5), (3, 7), (16, 16), (16, 0)])
def test_response_to_a_wave_is_the_formula(cycles: tuple[int, int]) -> None:
    """A wave of frequency f comes out times -(sin^2(pi fx) + sin^2(pi fy)) / 2, away from the repeated edges."""
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    fy, fx = cycles[0] / 32, cycles[1] / 32
    wave = torch.cos(2 * np.pi * (fy * y + fx * x))[None, None].double()
    response = -(np.sin(np.pi * fx) ** 2 + np.sin(np.pi * fy) ** 2) / 2
    found = second_differences(wave)[..., 1:-1, 1:-1]
    # Cosines of float32 arguments up to 200 are right to 1e-5.
    torch.testing.assert_close(found, response * wave[..., 1:-1, 1:-1], rtol=0, atol=5e-5)


def test_flat_pictures_have_no_detail_up_to_their_edges() -> None:
    assert second_differences(torch.full((1, 3, 5, 9), 0.75)).abs().max() == 0


def test_share_of_noise_is_the_sum_of_squared_taps() -> None:
    """White noise keeps the sum of squares of the taps: those of a Laplacian over 8, and of it twice."""
    impulse = torch.zeros(1, 3, 9, 9, dtype=torch.float64)
    impulse[..., 4, 4] = 1
    energy = detail_bands(impulse).square().sum((0, 2, 3)).reshape(2, 3)[:, 0]
    np.testing.assert_allclose(energy, NOISE_SHARE, rtol=1e-12, atol=0)


@pytest.mark.parametrize("sigma", [0.002, 0.05, 3.0, 80.0])
def test_bands_of_noise_alone_have_their_share_of_unit_variance(sigma: float) -> None:
    """Variance n s^2 / (d^2 + n s^2) with n the share of noise, d the spread of the data's band: 1 at high noise."""
    noise = torch.randn(1, 3, 256, 256, generator=torch.Generator().manual_seed(5))
    found = Detail(CONFIG).bands(sigma * noise, torch.full((1, 1, 1, 1), sigma)).var((0, 2, 3))
    share = np.repeat(NOISE_SHARE, 3) * sigma**2
    expected = share / (np.square(CONFIG.detail_std[:6]) + share)
    # 65,536 pixels, neighbours correlated: the variance is known to about one percent.
    np.testing.assert_allclose(found, expected, rtol=0.05, atol=0)


@pytest.mark.parametrize("cycles", [0, 4, 8, 12, 16])
@pytest.mark.parametrize("axis", [2, 3])
def test_the_finest_is_the_eighth_power_of_the_sine(cycles: int, axis: int) -> None:
    wave = torch.cos(2 * np.pi * cycles / 32 * torch.arange(32.0).double())
    wave = wave[:, None].expand(32, 32) if axis == 2 else wave[None].expand(32, 32)
    found = finest(wave.expand(1, 3, -1, -1), axis)
    expected = np.sin(np.pi * cycles / 32) ** 8 * wave
    # Away from the repeated edges; taps are multiples of 1 / 256.
    torch.testing.assert_close(found[0, 1, 4:-4, 4:-4], expected[4:-4, 4:-4], rtol=0, atol=1e-12)


@pytest.mark.parametrize("sigma", [0.001, 0.05, 80.0])
def test_at_nyquist_wiener_s_share_is_left(sigma: float) -> None:
    """Lines of alternating sign come out times d^2 / (d^2 + n sigma^2), d the spread of the axis; flat is kept."""
    lines = ((-1.0) ** torch.arange(16))[None, None, :, None].expand(1, 3, 16, 16)
    found = Detail(CONFIG).without_finest(lines + 2, torch.full((1, 1, 1, 1), sigma)) - 2
    data = torch.tensor(CONFIG.detail_std[6:])[:, None, None] ** 2
    expected = data / (data + FINEST_NOISE_SHARE * sigma**2) * lines
    torch.testing.assert_close(found[..., 4:-4, :], expected[..., 4:-4, :], rtol=0, atol=2e-6)  # float32 beside 2


def test_the_cut_is_float32_under_autocast() -> None:
    picture = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    detail, sigma = Detail(CONFIG), torch.full((1, 1, 1, 1), 0.3)
    with torch.autocast("cpu", torch.bfloat16):
        found = detail.without_finest(picture, sigma)
    assert torch.equal(found, detail.without_finest(picture, sigma))


def test_a_head_too_narrow_for_the_bands_is_refused() -> None:
    with pytest.raises(RequestError, match="detail_width 6"):
        replace(CONFIG, detail_width=6)
