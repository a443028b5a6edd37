"""What runs where, and what it could gain: peak numbers of GPU generations, and a roofline over a graph's work.

Peaks are for dense matrices, of the NVIDIA document that is named beside them. Those documents could not be opened
where this table was made: the numbers are as others quote them (PyTorch's ``torch._inductor.analysis.device_info`` for
A100, L4 and H100), and what multiprocessors, clock and memory interface multiply to agrees where it is known. Nothing
here was measured. A GPU's own measurement is that of ``benchmarks/gpu_acceptance.py`` on such a GPU.
"""

from __future__ import annotations

from dataclasses import dataclass

from msdm_engine.errors import RequestError, nearest

#: Compute capability from which tensor cores multiply FP8.
FP8_FROM = (8, 9)


@dataclass(frozen=True)
class Gpu:
    """One GPU that stands for its generation.

    Args:
        capability: compute capability.
        half, int8: dense peak in T operations a second, sums in 32 bits; fp8: None where there is none.
        bandwidth_gb_s: of its memory.
        source: NVIDIA's document with these numbers.
        clocked: multiprocessors, boost clock in GHz, FP16 operations of a multiprocessor's tensor cores in a clock;
            None: not known here.
        pins: width of the memory interface in bits, Gbit/s a bit; None: not known here.
    """

    name: str
    generation: str
    capability: tuple[int, int]
    half: float
    int8: float
    fp8: float | None
    bandwidth_gb_s: float
    source: str
    clocked: tuple[int, float, int] | None = None
    pins: tuple[int, float] | None = None

    @property
    def checked(self) -> str:
        """What the quoted numbers were compared with, in words."""
        peak = "{} SMs x {} GHz x {:,}".format(*self.clocked) if self.clocked else ""
        memory = "{} bit x {} Gbit/s".format(*self.pins) if self.pins else ""
        return "; ".join(part for part in (peak, memory) if part) or "not confirmed: quoted second-hand only"

    @property
    def shown_capability(self) -> str:
        """As in ``8.9``."""
        return f"{self.capability[0]}.{self.capability[1]}"

    def peak(self, precision: str) -> float | None:
        """T operations a second; None where the GPU has no such arithmetic."""
        return {"fp16": self.half, "int8": self.int8, "fp8": self.fp8}[precision]


GPUS = (
    Gpu("T4", "Turing", (7, 5), 65.0, 130.0, None, 320.0, "T4 data sheet", (40, 1.59, 1024), (256, 10.0)),
    Gpu("A10", "Ampere", (8, 6), 125.0, 250.0, None, 600.0, "A10 data sheet", (72, 1.695, 1024), (384, 12.5)),
    Gpu(
        "A100 SXM 80 GB",
        "Ampere",
        (8, 0),
        312.0,
        624.0,
        None,
        2039.0,
        "A100 data sheet",
        (108, 1.41, 2048),
        (5120, 3.186),
    ),
    Gpu(
        "L4",
        "Ada",
        (8, 9),
        121.0,
        242.5,
        242.5,
        300.0,
        "L4 data sheet, half of its numbers with sparsity",
        (58, 2.04, 1024),
        (192, 12.5),
    ),
    Gpu(
        "H100 SXM",
        "Hopper",
        (9, 0),
        989.4,
        1978.9,
        1978.9,
        3350.0,
        "H100 architecture white paper",
        (132, 1.83, 4096),
    ),
    Gpu("B200", "Blackwell", (10, 0), 2250.0, 4500.0, 4500.0, 8000.0, "Blackwell architecture brief, HGX B200, dense"),
)


@dataclass(frozen=True)
class Support:
    """Where a precision's kernels run.

    Args:
        evidence: on what the statement rests.
    """

    precision: str
    runtime: str
    runs: str
    evidence: str


#: A plan that builds shows that parser and builder take the graph. It is no evidence of the kernel that will run.
SUPPORT = (
    Support("int8", "TensorRT, data-centre and RTX GPUs from 7.5", "INT8 convolutions", "NVIDIA's support matrix"),
    Support("int8", "TensorRT for RTX", "builds; which kernels run is unknown", "the build; no GPU was at hand"),
    Support(
        "int8", "ONNX Runtime, CPU", "emulated: codes are dequantised, convolutions run in float32", "executed here"
    ),
    Support(
        "int8", "OpenVINO, CPU with VNNI", "INT8 convolutions", "executed here; the kernels it compiled are listed"
    ),
    Support("fp8", "TensorRT from 8.9", "FP8 convolutions where the library has them", "NVIDIA's support matrix"),
    Support(
        "fp8", "TensorRT for RTX from 8.9", "builds; which kernels run is unknown", "the build; no GPU was at hand"
    ),
    Support("fp8", "any below 8.9", "refused", "`msdm-export build` refuses the target"),
    Support(
        "fp8", "ONNX Runtime, CPU", "emulated: codes are dequantised, convolutions run in float32", "executed here"
    ),
)


@dataclass(frozen=True)
class Work:
    """What one step costs.

    Args:
        matrix_flops: 2 for each multiply-accumulate, everything.
        share: of it that is quantised, 0 to 1.
        half_bytes: read and written in FP16: weights, and each matrix node's input and output once.
        saved_bytes: of them that codes of one byte save.
    """

    matrix_flops: float
    share: float
    half_bytes: float
    saved_bytes: float


def seconds(work: Work, gpu: Gpu, precision: str) -> float:
    """Roofline (Williams et al. 2009): the slower of arithmetic and memory, each at its peak.

    max(F (1 - s) / P_half + F s / P_q, B / bandwidth): no launch, no element-wise arithmetic, no overlap lost.

    Args:
        precision: ``fp16``, ``int8`` or ``fp8``.

    Raises:
        RequestError: the GPU has no such arithmetic.
    """
    peak = gpu.peak(precision)
    if peak is None:
        raise RequestError(
            f"precision {precision} on {gpu.name}", note="FP8 needs compute capability 8.9", hint="use int8 or fp16"
        )
    share = 0.0 if precision == "fp16" else work.share
    arithmetic = work.matrix_flops * ((1 - share) / gpu.half + share / peak) / 1e12
    moved = work.half_bytes - (0.0 if precision == "fp16" else work.saved_bytes)
    return max(arithmetic, moved / (gpu.bandwidth_gb_s * 1e9))


def gains(work: Work, precision: str) -> dict[str, float | None]:
    """GPU -> how many times faster than FP16 at most; None where it has no such arithmetic."""
    return {
        gpu.name: None if gpu.peak(precision) is None else seconds(work, gpu, "fp16") / seconds(work, gpu, precision)
        for gpu in GPUS
    }


def gpu_named(name: str) -> Gpu:
    """The GPU of that name.

    Raises:
        RequestError: it is not in the table.
    """
    found = {gpu.name: gpu for gpu in GPUS}
    if name not in found:
        raise RequestError(f"unknown GPU '{name}'", note=nearest(name, found))
    return found[name]
