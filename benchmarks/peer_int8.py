"""The peer in INT8: what a user gets from ONNX Runtime's own static quantisation of the one graph, run by OpenVINO.

Its defaults: activations by smallest and largest value, weights for each output channel, every convolution. It is given
what it needs, the activations of whole trajectories of the very requests that are timed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from benchmarks.peer_networks import Arrays, OnnxWhole, OpenVinoWhole

#: What weighs: convolutions. The rest is left in the precision of the run.
OPERATIONS = ["Conv"]


class OpenVinoWholeInt8(OpenVinoWhole):
    """OpenVINO with one graph whose convolutions are INT8, the rest bfloat16."""

    def __init__(self, graph: bytes, conditions: Arrays, start: np.ndarray, table: np.ndarray) -> None:
        super().__init__(quantised(graph, _seen(graph, conditions, start, table)), "bf16")
        self.precision, self.name = "int8", "OpenVINO, one graph, INT8 by onnxruntime.quantization"


def _seen(graph: bytes, conditions: Arrays, start: np.ndarray, table: np.ndarray) -> list[Arrays]:
    """The inputs of each step of a float32 trajectory."""
    seen: list[Arrays] = []

    class Recording(OnnxWhole):
        def denoise(self, x: np.ndarray, sigma: float, prepared: Arrays) -> np.ndarray:
            seen.append({**prepared, "state": x.copy(), "sigma": np.array([sigma], np.float32)})
            return super().denoise(x, sigma, prepared)

    Recording(graph).trajectory(start, table, conditions)
    return seen


def quantised(graph: bytes, seen: list[Arrays]) -> bytes:
    """Q/DQ around every convolution, scales from the inputs that were seen."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.left: Iterator[Arrays] = iter(seen)

        def get_next(self) -> Arrays | None:
            return next(self.left, None)

    with tempfile.TemporaryDirectory() as folder:
        whole, prepared, out = (Path(folder) / name for name in ("whole.onnx", "prepared.onnx", "quantised.onnx"))
        whole.write_bytes(graph)
        quant_pre_process(str(whole), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(out),
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            op_types_to_quantize=OPERATIONS,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return out.read_bytes()
