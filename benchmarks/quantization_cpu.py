"""INT8 on the CPU: one step of the denoiser in OpenVINO and in ONNX Runtime, at batch 1, on one thread, in turns."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.quantization_search import Work
from benchmarks.timer import measure as time_in_turns

from msdm_calibration.quantize.subject import FINAL, relative_l2
from msdm_calibration.trajectory import Arrays, Sessions, Visit, follow
from msdm_engine.backends import Backend
from msdm_engine.backends.openvino import OpenVinoBackend, parse_options
from msdm_engine.bundle.reader import Bundle
from msdm_engine.contract import DENOISER
from msdm_engine.pairs import PairRequest

BF16 = "CPU,inference_precision=bf16"


@dataclass(frozen=True)
class Way:
    """One way to run a step.

    Args:
        precision: of the graphs. options: of OpenVINO, behind the colon of the backend's name; None: ONNX Runtime.
    """

    runtime: str
    folder: Path
    precision: str
    rest: str
    options: str | None

    def open(self, bundle: Bundle) -> Backend:
        """The backend on one thread."""
        if self.options is not None:
            return OpenVinoBackend(bundle, threads=1, precision=self.precision, options=parse_options(self.options))
        graphs = {name: bundle.contents[spec.file] for name, spec in bundle.in_precision(self.precision).items()}
        return Sessions(graphs, precision=self.precision)


def ways(work: Work) -> tuple[Way, ...]:
    """Float32 first: the others' trajectories are compared with its own."""
    plain, int8 = work.plain, work.whole("int8")
    return (
        Way("ONNX Runtime", plain, "float32", "float32", None),
        Way("ONNX Runtime", int8, "int8", "float32", None),
        Way("OpenVINO", plain, "float32", "float32", ""),
        Way("OpenVINO", plain, "float32", "bfloat16", BF16),
        Way("OpenVINO", int8, "int8", "float32", ""),
        Way("OpenVINO", int8, "int8", "bfloat16", BF16),
    )


def cpu_steps(work: Work, request: PairRequest, repeats: int = 15) -> list[dict[str, Any]]:
    """A row for each way: error of the request's final state, convolutions by arithmetic, time of a step."""
    rows: list[dict[str, Any]] = []
    steps: dict[str, Any] = {}
    expected = np.empty(0)
    with ExitStack() as opened:
        for way in ways(work):
            bundle = Bundle.open(way.folder)
            backend = opened.enter_context(closing(way.open(bundle)))
            last: list[Visit] = []

            def see(visit: Visit, last: list[Visit] = last) -> None:
                if visit.graph == DENOISER:
                    last[:] = [visit]

            follow(bundle, backend, [request], see, critic=False)
            final, inputs = last[0].outputs[FINAL], dict(last[0].inputs)
            expected = expected if rows else final
            rows.append(
                {
                    "runtime": way.runtime,
                    "graphs": way.precision,
                    "rest": way.rest,
                    "trajectory_relative_l2": relative_l2(final, expected),
                    "convolutions": dict(_arithmetic(backend, inputs)) if way.options is not None else None,
                }
            )
            steps[f"{len(rows) - 1}"] = partial(backend.run, DENOISER, inputs)
        for name, timing in time_in_turns(steps, warmups=2, repeats=repeats).items():
            rows[int(name)]["step"] = timing.as_dict()
    return rows


def _arithmetic(backend: Any, inputs: Arrays) -> Iterator[tuple[str, int]]:
    """Kernels that OpenVINO compiled for convolutions, by the type at the end of their name."""
    shapes = tuple((name, tuple(value.shape)) for name, value in sorted(inputs.items()))
    kernels = [
        node.get_rt_info()["primitiveType"].astype(str).rsplit("_", 1)[1]
        for node in backend.compiled(DENOISER, shapes).get_runtime_model().get_ops()
        if node.get_rt_info()["layerType"].astype(str) == "Convolution"
    ]
    for kernel in sorted(set(kernels)):
        yield kernel.lower(), kernels.count(kernel)


def cpu_table(rows: list[dict[str, Any]]) -> list[str]:
    """Markdown."""
    found = ["| runtime | graphs | rest | convolutions | trajectory error | ms a step |", "|---|---|---|---|---|---|"]
    for row in rows:
        kernels = row["convolutions"]
        shown = ", ".join(f"{count} {kind}" for kind, count in kernels.items()) if kernels else "float32"
        found.append(
            f"| {row['runtime']} | {row['graphs']} | {row['rest']} | {shown} | {row['trajectory_relative_l2']:.2g} | "
            f"{1000 * row['step']['median_s']:.1f} |"
        )
    return found
