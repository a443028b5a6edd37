"""What the bench counts and derives, and one run of it on the reference bundle."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from msdm_engine.backends.onnx_profile import Product, products_of_event
from msdm_engine.bench import run
from msdm_engine.bench.run import Bench, closing_text, growth, run_bench
from msdm_engine.bench.setting import Setting, in_process
from msdm_engine.cli import main
from msdm_engine.errors import BackendError, BundleError, RequestError


def node(name: str, inputs: list[list[int]], output: list[int]) -> dict[str, Any]:
    shapes = [{"float": shape} for shape in inputs]
    return {"op_name": name, "input_type_shape": shapes, "output_type_shape": [{"float": output}]}


@pytest.mark.parametrize(
    ("found", "products", "flops"),
    [
        # Each of 2 x 8 x 16 x 16 outputs is a sum over 4 channels and 9 taps.
        (node("Conv", [[2, 4, 16, 16], [8, 4, 3, 3], [8]], [2, 8, 16, 16]), {Product(8, 36, 512): 1}, 2 * 4096 * 36),
        # In two groups each output sees half of the channels.
        (node("Conv", [[2, 4, 16, 16], [8, 2, 3, 3]], [2, 8, 16, 16]), {Product(4, 18, 512): 2}, 2 * 4096 * 18),
        (node("Gemm", [[3, 5], [7, 5], [7]], [3, 7]), {Product(3, 5, 7): 1}, 2 * 3 * 5 * 7),
        (node("MatMul", [[2, 4, 3, 5], [2, 4, 5, 7]], [2, 4, 3, 7]), {Product(3, 5, 7): 8}, 8 * 2 * 3 * 5 * 7),
        (node("Add", [[3, 5], [3, 5]], [3, 5]), {}, 0),
    ],
)
def test_products_and_operations(found: dict[str, Any], products: dict[Product, int], flops: int) -> None:
    assert products_of_event(found) == Counter(products)
    assert sum(product.flops * times for product, times in products.items()) == flops


def row(seconds: float, batch: int = 2, size_px: int = 64, steps: int = 4) -> dict[str, Any]:
    setting = {"batch": batch, "size_px": size_px, "steps": steps, "threads": 1}
    return {"setting": setting, "batch_s": {"median": seconds}}


def test_growth_is_the_exponent_of_a_power_law() -> None:
    """Seconds = pixels^1.25 and batch^0.5; rows that differ in anything else do not count."""
    rows = [
        row(1.0),
        row(4.0**1.25, size_px=128),
        row(16.0**1.25, size_px=256),
        row(2.0**0.5, batch=4),
        row(99, steps=9),
    ]
    found = growth(rows)
    assert found == {"area": pytest.approx(1.25), "batch": pytest.approx(0.5)}
    assert growth(rows[:1]) == {} and growth([]) == {}


def test_one_quantity_at_a_time_and_the_base_first() -> None:
    bench = Bench(batches=(4, 1), sizes_px=(128, 64, 128), steps=(8,), threads=(2, 1), parallel=1)
    assert bench.settings() == [
        Setting(4, 128, 8, 2), Setting(1, 128, 8, 2), Setting(4, 64, 8, 2), Setting(4, 128, 8, 1),
    ]  # fmt: skip


def test_batches_side_by_side_are_those_of_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """On four cores: four batches of a thread, two of two; or as many as are asked for; a GPU runs one."""
    monkeypatch.setattr("msdm_engine.pipeline.parallel.cores", lambda: 4)
    one = {"batches": (2,), "sizes_px": (64,), "steps": (8,)}
    found = Bench(**one, threads=(1, 2)).settings()  # type: ignore[arg-type]
    assert found == [Setting(2, 64, 8, 1, 4), Setting(2, 64, 8, 2, 2)]
    assert [str(setting)[-15:] for setting in found] == ["4 x 1 thread(s)", "2 x 2 thread(s)"]
    assert Bench(**one, threads=(1,), parallel=3).settings() == [Setting(2, 64, 8, 1, 3)]  # type: ignore[arg-type]
    assert Bench(**one, backend="tensorrt").settings() == [Setting(2, 64, 8, 1, 1)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((0, 64, 1, 1), "batch is 0"),
        ((1, 8, 1, 1), "size_px is 8"),
        ((1, 64, 0, 1), "steps is 0"),
        ((1, 64, 1, 1, 0), "parallel is 0"),
    ],
)
def test_a_setting_out_of_range(values: tuple[int, ...], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        Setting(*values)


def test_an_error_of_the_process_is_told_as_itself(tmp_path: Path) -> None:
    setting = {"batch": 1, "size_px": 64, "steps": 1, "threads": 1}
    plan = {"bundle": str(tmp_path / "none"), "backend": "onnxruntime", "precision": "float32", "repeats": 1}
    with pytest.raises(BundleError, match="none"):
        in_process("worker", 1, {"setting": setting, "plan": plan})


def test_a_process_without_a_result() -> None:
    with pytest.raises(BackendError, match=r"ended without a result: .*not enough values"):
        in_process("peak", 1, [[1, 2]])


def test_an_interrupt_keeps_what_is_measured(reference: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = iter([row(1.0, batch=1) | {"latency": {"requests": 0}, "stages": {}}])

    def measure(*arguments: Any) -> dict[str, Any]:
        try:
            return next(measured)
        except StopIteration:
            raise KeyboardInterrupt from None

    monkeypatch.setattr(run, "_measured", measure)
    monkeypatch.setattr(run, "row_text", lambda row: "")
    document = run_bench(Bench(batches=(1, 2), threads=(1,)))
    assert document["interrupted"] and len(document["settings"]) == 1
    assert "interrupted" in closing_text(document)


def test_the_command(reference: Any, tmp_path: Path) -> None:
    """Some 10 s: a process for the setting, and two for the peak."""
    out = tmp_path / "bench.json"
    small = [
        "--batches",
        "1",
        "--sizes",
        "64",
        "--steps",
        "1",
        "--threads",
        "1",
        "--parallel",
        "2",
        "--quick",
        "--out",
        str(out),
    ]
    done = CliRunner().invoke(main, ["bench", *small])
    assert done.exit_code == 0, done.output
    assert "of peak" in done.stdout and "latency of 5 single requests" in done.stdout and "stage encode" in done.stdout
    (found,) = json.loads(out.read_text())["settings"]
    assert found["step_flops"] > 1e6 and found["fraction_of_peak"] > 0
    assert found["step_gflop_s"] == pytest.approx(found["step_flops"] / found["step_s"]["fastest"] / 1e9)
    assert found["latency"]["p50_s"] <= found["latency"]["p99_s"]
    assert found["setting"]["parallel"] == 2 and "2 x 1 thread(s)" in done.stdout
    assert found["stages"]["encode"]["runs"] == 8
    assert found["stages"]["compute"]["runs"] >= 8 * 2  # a pair at a time, one step and the critic
    bad = CliRunner().invoke(main, ["bench", "--batches", "one"])
    assert bad.exit_code == 2 and "whole numbers" in bad.stderr
