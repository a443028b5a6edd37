from __future__ import annotations

import pytest
import torch

from msdm_engine.contract import MASKED_BIAS
from msdm_train.model.blocks import ChannelNorm, CrossAttention, ResidualBlock, SigmaEmbedding


def test_channel_norm_has_root_mean_square_one_at_each_pixel() -> None:
    x = torch.randn(2, 24, 5, 7, generator=torch.Generator().manual_seed(0)) * 30
    y = ChannelNorm(24)(x)
    # The norm adds 1e-6 to mean squares of about 900.
    torch.testing.assert_close(y.square().mean(1), torch.ones(2, 5, 7), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(y / x, (y / x)[:, :1].expand_as(x))  # one factor for all channels of a pixel


def test_channel_norm_looks_at_its_own_pixel_only() -> None:
    norm, x = ChannelNorm(8), torch.randn(1, 8, 6, 6, generator=torch.Generator().manual_seed(0))
    changed = x.clone()
    changed[..., 3:, :] = 100
    assert torch.equal(norm(x)[..., :3, :], norm(changed)[..., :3, :])


def test_channel_norm_gain_is_for_each_channel() -> None:
    norm = ChannelNorm(3)
    with torch.no_grad():
        norm.gain.copy_(torch.tensor([1.0, 2.0, 0.0])[:, None, None])
    assert norm(torch.full((1, 3, 1, 1), 5.0)).flatten().tolist() == pytest.approx([1, 2, 0])


def test_channel_norm_in_half_does_not_overflow() -> None:
    # 192 squares of 300 sum to 1.7e7; float16 ends at 65504.
    y = ChannelNorm(192).half()(torch.full((1, 192, 2, 2), 300.0, dtype=torch.float16))
    # eps of float16 is 2^-10; scale and product round once each.
    torch.testing.assert_close(y, torch.ones_like(y), rtol=2**-9, atol=0)


def test_a_residual_block_begins_as_its_skip() -> None:
    x = torch.randn(2, 8, 4, 4, generator=torch.Generator().manual_seed(0))
    maps, embedding = torch.randn(2, 5, 4, 4), torch.randn(2, 6)
    assert torch.equal(ResidualBlock(8, 8, 5, 6)(x, maps, embedding), x)
    wider = ResidualBlock(8, 12, 5, 6)
    assert torch.equal(wider(x, maps, embedding), wider.skip(x))


def test_cross_attention_begins_as_the_identity_and_ignores_masked_tokens() -> None:
    g = torch.Generator().manual_seed(0)
    block = CrossAttention(8, heads=2, head_channels=4)
    x, keys, values = (torch.randn(s, generator=g) for s in ((1, 8, 3, 3), (1, 2, 5, 4), (1, 2, 5, 4)))
    bias = torch.zeros(1, 1, 1, 5)
    assert torch.equal(block(x, keys, values, bias), x)
    torch.nn.init.normal_(block.out.weight, generator=g)
    bias[..., 3:] = MASKED_BIAS
    # exp(-10000) is 0 in float32, so the sums are those of the first three tokens, to the bit or to the last one.
    torch.testing.assert_close(
        block(x, keys, values, bias), block(x, keys[:, :, :3], values[:, :, :3], bias[..., :3]), rtol=1e-6, atol=1e-6
    )


def test_sigma_embedding_tells_noise_levels_apart() -> None:
    torch.manual_seed(0)
    sigma = torch.logspace(-2.3, 1.9, 30)  # 0.005 to 80
    embedded = SigmaEmbedding(16)(sigma)
    assert embedded.shape == (30, 16)
    off_diagonal = torch.cdist(embedded, embedded)[~torch.eye(30, dtype=torch.bool)]
    assert off_diagonal.min() > 1e-3
