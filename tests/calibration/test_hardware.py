"""The table of GPUs, and the roofline in its two limits."""

from __future__ import annotations

import pytest

from msdm_calibration.hardware import FP8_FROM, GPUS, SUPPORT, Work, gains, gpu_named, seconds
from msdm_engine.errors import RequestError


def test_fp8_is_there_from_ada_on() -> None:
    for gpu in GPUS:
        assert (gpu.fp8 is not None) == (gpu.capability >= FP8_FROM), gpu.name
    assert {gpu.generation for gpu in GPUS} == {"Turing", "Ampere", "Ada", "Hopper", "Blackwell"}


def test_peaks_are_what_multiprocessors_and_clock_multiply_to() -> None:
    checked = [gpu for gpu in GPUS if gpu.clocked]
    assert [gpu.name for gpu in GPUS if not gpu.clocked] == ["B200"]
    for gpu in checked:
        assert gpu.clocked is not None
        sms, clock_ghz, operations = gpu.clocked
        # Data sheets round to whole teraflops.
        assert gpu.half == pytest.approx(sms * clock_ghz * operations / 1e3, rel=0.003), gpu.name
        # Eight bits are twice as fast from Turing on.
        assert gpu.int8 == pytest.approx(2 * gpu.half, rel=0.003), gpu.name
        assert gpu.fp8 in (None, gpu.int8), gpu.name
        if gpu.pins:
            assert gpu.bandwidth_gb_s == pytest.approx(gpu.pins[0] * gpu.pins[1] / 8, rel=0.001), gpu.name
        assert f"{sms} SMs" in gpu.checked
    assert "not confirmed" in gpu_named("B200").checked


def test_a_plan_that_builds_is_not_presented_as_a_kernel() -> None:
    for support in SUPPORT:
        if support.runtime.startswith("TensorRT for RTX"):
            assert "unknown" in support.runs


def test_arithmetic_alone_gains_the_ratio_of_the_peaks_by_amdahl() -> None:
    work = Work(matrix_flops=1e15, share=0.8, half_bytes=1.0, saved_bytes=0.5)
    # 1 / (0.2 + 0.8 / 2) of twice the rate.
    assert gains(work, "int8")["T4"] == pytest.approx(1 / 0.6)
    assert gains(work, "fp8")["T4"] is None


def test_memory_alone_gains_what_the_codes_save() -> None:
    work = Work(matrix_flops=1.0, share=0.8, half_bytes=4e9, saved_bytes=1e9)
    assert gains(work, "fp8")["L4"] == pytest.approx(4 / 3)
    assert seconds(work, gpu_named("L4"), "fp16") == pytest.approx(4 / 300)


def test_what_a_gpu_lacks_is_refused() -> None:
    with pytest.raises(RequestError, match="fp8 on T4"):
        seconds(Work(1.0, 1.0, 1.0, 0.0), gpu_named("T4"), "fp8")
    with pytest.raises(RequestError, match="unknown GPU 'H10'"):
        gpu_named("H10")
