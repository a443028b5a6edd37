"""The import-direction check, on small trees with one file that is right or wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "check_imports.py"
ENGINE, EXPORT = "engine/msdm_engine", "export/msdm_export"
CALIBRATION, TRAIN = "calibration/msdm_calibration", "msdm_train/msdm_train"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for package in (ENGINE, EXPORT, CALIBRATION, TRAIN):
        (tmp_path / package).mkdir(parents=True)
        (tmp_path / package / "__init__.py").write_text("")
    return tmp_path


def check(root: Path) -> tuple[int, list[str]]:
    done = subprocess.run([sys.executable, str(SCRIPT), str(root)], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.returncode, done.stdout.splitlines()


def put(root: Path, path: str, source: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(source)


LEGAL = [
    (f"{TRAIN}/a.py", "import torch\nfrom msdm_engine.conditions import maps\n"),
    (f"{EXPORT}/a.py", "import onnx\nimport msdm_engine, msdm_train.model\n"),
    (f"{CALIBRATION}/a.py", "from msdm_engine import contract\n"),
    (f"{ENGINE}/a.py", "import numpy\nfrom . import tests\nfrom .torch import x\nimport msdm_engine.contract\n"),
    (f"{ENGINE}/a.py", "import onnxish, torchless\n"),
    (f"{ENGINE}/backends/ort.py", "import onnxruntime as ort\n"),
    (f"{ENGINE}/backends/trt.py", "import importlib\nimportlib.import_module('tensorrt_rtx')\nimport tensorrt\n"),
    (f"{ENGINE}/devices/cuda.py", "from cuda.bindings import runtime\n"),
    (f"{EXPORT}/a.py", "import tensorrt_rtx, onnxruntime\n"),
    (f"{ENGINE}/a.py", "import importlib.util\nhas = importlib.util.find_spec('onnxruntime')\n"),
    ("tests/engine/test_a.py", "import msdm_engine, msdm_train, torch\n"),
    ("benchmarks/a.py", "import benchmarks.timer, msdm_export\n"),
]

ILLEGAL = [
    (f"{ENGINE}/a.py", "import msdm_train\n", 1, "msdm_engine imports msdm_train"),
    (f"{ENGINE}/a.py", "\nfrom msdm_export.onnx import x\n", 2, "msdm_engine imports msdm_export"),
    (f"{ENGINE}/a.py", "import os, msdm_calibration.x\n", 1, "msdm_engine imports msdm_calibration"),
    (f"{TRAIN}/a.py", "import msdm_export\n", 1, "msdm_train imports msdm_export"),
    (f"{TRAIN}/a.py", "import msdm_calibration\n", 1, "msdm_train imports msdm_calibration"),
    (f"{EXPORT}/a.py", "import msdm_calibration\n", 1, "msdm_export imports msdm_calibration"),
    (f"{CALIBRATION}/a.py", "import msdm_train\n", 1, "msdm_calibration imports msdm_train"),
    (f"{CALIBRATION}/a.py", "import msdm_export\n", 1, "msdm_calibration imports msdm_export"),
    (f"{ENGINE}/a.py", "import torch.nn as nn\n", 1, "msdm_engine imports torch"),
    (f"{ENGINE}/a.py", "import onnx\n", 1, "msdm_engine imports onnx"),
    (f"{ENGINE}/a.py", "from transformers import BertModel\n", 1, "msdm_engine imports transformers"),
    (f"{ENGINE}/a.py", "from scipy import ndimage\n", 1, "msdm_engine imports scipy"),
    (f"{ENGINE}/a.py", "import skimage\n", 1, "msdm_engine imports skimage"),
    (f"{ENGINE}/backends/a.py", "import safetensors\n", 1, "msdm_engine imports safetensors"),
    (f"{ENGINE}/a.py", "def f():\n    import torch\n", 2, "msdm_engine imports torch"),
    (f"{ENGINE}/a.py", "import importlib\nimportlib.import_module('torch.nn')\n", 2, "msdm_engine imports torch"),
    (f"{ENGINE}/a.py", "__import__('msdm_train')\n", 1, "msdm_engine imports msdm_train"),
    (f"{ENGINE}/a.py", "import onnxruntime\n", 1, "onnxruntime is imported outside"),
    (f"{ENGINE}/deep/backends/a.py", "import onnxruntime\n", 1, "onnxruntime is imported outside"),
    (
        f"{ENGINE}/devices/a.py",
        "import tensorrt\n",
        1,
        "tensorrt is imported outside msdm_engine/backends; go through a b",
    ),
    (f"{ENGINE}/pipeline/a.py", "import tensorrt_rtx\n", 1, "tensorrt_rtx is imported outside"),
    (
        f"{ENGINE}/backends/a.py",
        "import cuda.core\n",
        1,
        "cuda is imported outside msdm_engine/devices; go through a dev",
    ),
    (f"{TRAIN}/a.py", "import tests.helpers\n", 1, "msdm_train imports tests"),
    (f"{ENGINE}/a.py", "from benchmarks.timer import time\n", 1, "msdm_engine imports benchmarks"),
    ("tools/a.py", "import benchmarks\n", 1, "tools imports benchmarks"),
    ("tests/test_a.py", "from tests import x\n", 1, "tests imports tests"),
    ("tests/test_a.py", "from benchmarks import x\n", 1, "tests imports benchmarks"),
    ("benchmarks/a.py", "import tests\n", 1, "benchmarks imports tests"),
    (f"{ENGINE}/a.py", "x = 1\ny = (\n", 2, "cannot be parsed"),
]


@pytest.mark.parametrize(("path", "source"), LEGAL)
def test_legal_imports_pass(tree: Path, path: str, source: str) -> None:
    put(tree, path, source)
    assert check(tree) == (0, [])


@pytest.mark.parametrize(("path", "source", "line", "reason"), ILLEGAL)
def test_illegal_import_is_reported_with_its_line(tree: Path, path: str, source: str, line: int, reason: str) -> None:
    put(tree, path, source)
    status, printed = check(tree)
    assert status == 1
    assert len(printed) == 1
    assert printed[0].startswith(f"{path}:{line}: {reason}")


def test_each_violation_is_reported(tree: Path) -> None:
    put(tree, f"{ENGINE}/a.py", "import torch, onnx\nimport numpy\nimport msdm_train\n")
    put(tree, f"{TRAIN}/b.py", "import msdm_export\n")
    status, printed = check(tree)
    assert status == 1
    assert [line.split(": ")[0] for line in printed] == [
        f"{ENGINE}/a.py:1",
        f"{ENGINE}/a.py:1",
        f"{ENGINE}/a.py:3",
        f"{TRAIN}/b.py:1",
    ]


def test_a_missing_package_is_no_pass(tmp_path: Path) -> None:
    status, printed = check(tmp_path)
    assert status == 1
    assert [line.split(":")[0] for line in printed] == [ENGINE, EXPORT, CALIBRATION, TRAIN]
