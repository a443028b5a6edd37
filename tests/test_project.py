"""What the project promises about its own packaging."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
#: An install that only generates has none of these, and importing the engine loads none of them.
HEAVY = {"torch", "onnx", "onnxscript", "transformers", "accelerate", "safetensors", "tensorboard"}
RUNTIMES = {"onnxruntime", "onnxruntime-gpu"}


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return table


def names(requirements: list[str]) -> set[str]:
    """Distribution names of requirement lines such as ``torch>=2.5``, normalised as by PEP 503."""
    heads = [re.match(r"[A-Za-z0-9._-]+", line) for line in requirements]
    return {re.sub(r"[-_.]+", "-", head.group()).lower() for head in heads if head}


def test_base_install_has_neither_training_nor_export_packages_nor_a_runtime(project: dict[str, Any]) -> None:
    assert not names(project["dependencies"]) & (HEAVY | RUNTIMES)


def test_each_runtime_stands_in_its_own_extra_only(project: dict[str, Any]) -> None:
    holders = {
        extra: names(lines) & RUNTIMES
        for extra, lines in project["optional-dependencies"].items()
        if names(lines) & RUNTIMES
    }
    assert holders == {"cpu": {"onnxruntime"}, "gpu": {"onnxruntime-gpu"}}


def test_the_cpu_extra_brings_only_the_runtime(project: dict[str, Any]) -> None:
    assert names(project["optional-dependencies"]["cpu"]) == {"onnxruntime"}


def test_torch_is_a_range_for_users(project: dict[str, Any]) -> None:
    lines = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    assert not [line for line in lines if "==" in line]


def test_importing_the_engine_loads_no_runtime_and_no_training_package() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import sys, msdm_engine; print('\\n'.join(sys.modules))"],
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = {module.split(".")[0] for module in done.stdout.split()}
    assert "msdm_engine" in loaded
    assert not loaded & (HEAVY | {"onnxruntime"})


def test_no_package_under_tests() -> None:
    """A package ``tests/msdm_train`` would shadow the real one under some import modes."""
    assert not list((ROOT / "tests").rglob("__init__.py"))
