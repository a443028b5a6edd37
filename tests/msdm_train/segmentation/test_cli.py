from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from msdm_engine.output.png import png_bytes
from msdm_train.cli import main
from msdm_train.data.pack import Pack
from msdm_train.segmentation.checkpoint import read_segmenter_info
from msdm_train.segmentation.predict import load_segmenter_module

QUICK = ("--steps", "1", "--batch", "2", "--crop", "32")
#: ONNX Runtime and PyTorch add the same float32 products in different orders; outputs are of size 1.
PARITY = 1e-4


def call(*words: str | Path) -> str:
    result = CliRunner().invoke(main, ["segment", *map(str, words)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def error(*words: str | Path) -> str:
    result = CliRunner().invoke(main, ["segment", *map(str, words)], catch_exceptions=False)
    assert result.exit_code == 2
    return result.output


@pytest.fixture
def made(tmp_path: Path, opened_pack: Pack) -> Path:
    for kind, array in zip(("images", "masks"), opened_pack.window("t1", 0, 0, 64, 64), strict=True):
        (tmp_path / "set" / kind).mkdir(parents=True)
        (tmp_path / "set" / kind / "000000.png").write_bytes(png_bytes(array))
    return tmp_path / "set"


def test_trains_on_a_mixture_with_a_fold_held_out(small_pack: Path, made: Path, tmp_path: Path) -> None:
    mixed = ("--real", small_pack, "--fields-fold", "0/2", "--synthetic", made, "--share", "0.25")
    call("train", *mixed, *QUICK, "--out", tmp_path / "run")
    parts = read_segmenter_info(tmp_path / "run" / "checkpoint").source["mixture"]
    assert [part["share"] for part in parts] == [0.75, 0.25] and parts[0]["fields"] == ["t2"]
    report = tmp_path / "scores.json"
    text = call("score", tmp_path / "run" / "checkpoint", "--data", small_pack, "--fields-fold", "0/2", "--out", report)
    assert "mean of pictures" in text and list(json.loads(report.read_text())["by_field"]) == ["t1"]


def test_trains_on_synthetic_pictures_alone(made: Path, tmp_path: Path) -> None:
    call("train", "--synthetic", made, *QUICK, "--out", tmp_path / "run")
    assert read_segmenter_info(tmp_path / "run" / "checkpoint").source["folder"] == "set"


def test_predicts(trained: Path, made: Path, tmp_path: Path) -> None:
    assert "wrote 1 instance maps" in call("predict", trained, made / "images", "--out", tmp_path / "masks")
    assert (tmp_path / "masks" / "000000.png").is_file()


def test_exports_what_the_module_computes_at_any_size(trained: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    call("export", trained, "--out", tmp_path / "s.onnx")
    session, (module, identity) = runtime.InferenceSession(tmp_path / "s.onnx"), load_segmenter_module(trained)
    assert session.get_modelmeta().custom_metadata_map == identity
    for n, height, width in ((1, 8, 24), (3, 40, 16)):
        image = np.random.default_rng(n).uniform(-1, 1, (n, 3, height, width)).astype(np.float32)
        with torch.no_grad():
            expected = module(torch.from_numpy(image)).numpy()
        np.testing.assert_allclose(session.run(["critic_maps"], {"image": image})[0], expected, atol=PARITY)


def test_options_that_do_not_fit(small_pack: Path, made: Path, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "run")
    assert "nothing to learn from" in error("train", *out)
    assert "--share goes with both" in error("train", "--real", small_pack, "--share", "0.5", *out)
    assert "--share goes with both" in error("train", "--real", small_pack, "--synthetic", made, *out)
    assert "--fields-fold goes with --real" in error("train", "--synthetic", made, "--fields-fold", "0/2", *out)
    assert "did you mean 'plain'" in error("train", "--real", small_pack, "--architecture", "plane", *out)
