"""The peers: the same weights as a user would run them with other tools, each behind the same few methods.

``denoise`` gives D of one noise level; everything around it (conditions, noise, the solver's update, rounding, files)
is the same code for all, in :mod:`benchmarks.peer_sets`. Only diffusers brings a loop of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from msdm_engine import Bundle
from msdm_engine.contract import CONDITIONER, CONDITIONER_INPUTS, DENOISER, TEXT_ENCODER
from msdm_engine.cores import cores
from msdm_export.graphs import GraphExport
from msdm_export.onnx_export import onnx_from_module
from msdm_train.model.msdm import MSDM
from msdm_train.training.from_bundle import read_bundle

Arrays = dict[str, np.ndarray]
#: Inputs of the whole network, in one graph: noisy state, noise level, and all conditions with the text as tokens.
WHOLE_INPUTS = ("state", "sigma", "maps", "maps_present", "colour", "colour_present", "token_ids", "token_mask")
CORES = cores()


class Peer:
    """One way to run the network.

    Attributes:
        precision: ``float32`` or ``half`` (bfloat16 arithmetic, state and update in float32).
        split: whether it runs msdm's split graphs.
    """

    name: str
    precision = "float32"
    split = False

    def prepare(self, conditions: Arrays) -> Any:
        """What can be computed once for a batch, if the tool has a way to."""
        return conditions

    def denoise(self, x: np.ndarray, sigma: float, prepared: Any) -> np.ndarray:
        """D: [B, C, H, W] float32 -> the same."""
        raise NotImplementedError

    def trajectory(self, x: np.ndarray, table: np.ndarray, conditions: Arrays) -> np.ndarray:
        """The last state, by the solver's linear update in NumPy."""
        prepared, d_prev = self.prepare(conditions), np.zeros_like(x)
        for sigma, c_x, c_d, c_prev, _ in table.astype(np.float32):
            d = self.denoise(x, float(sigma), prepared)
            x, d_prev = c_x * x + c_d * d + c_prev * d_prev, d
        return x


def model_of(bundle: Bundle) -> MSDM:
    """The bundle's weights in PyTorch."""
    info, weights, _ = read_bundle(bundle.folder)
    model = MSDM(info.model)
    model.load_state_dict(weights)
    return model.eval()


class Torch(Peer):
    """PyTorch, conditions computed once for a batch, as the model's own methods invite to."""

    def __init__(self, model: MSDM, *, half: bool = False, compiled: bool = False) -> None:
        self.model, self.half = model, half
        self.precision = "half" if half else "float32"
        self.name = f"PyTorch {'torch.compile' if compiled else 'eager'}, {'bfloat16' if half else 'float32'}"
        self.call: Callable[..., Tensor] = torch.compile(model, dynamic=False) if compiled else model

    def prepare(self, conditions: Arrays) -> Any:
        """Token states and all that the conditioner gives."""
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, self.half):
            return self.model.context({name: torch.from_numpy(value) for name, value in conditions.items()})

    def _denoised(self, x: Tensor, sigma: float, context: Any) -> Tensor:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, self.half):
            return self.call(x, torch.tensor([sigma]), context).float()

    def denoise(self, x: np.ndarray, sigma: float, prepared: Any) -> np.ndarray:
        """See :class:`Peer`."""
        return self._denoised(torch.from_numpy(x), sigma, prepared).numpy()


class Diffusers(Torch):
    """diffusers' Euler scheduler around the same network in PyTorch eager."""

    def __init__(self, model: MSDM) -> None:
        super().__init__(model)
        self.name = "diffusers EulerDiscreteScheduler, PyTorch eager, float32"

    def trajectory(self, x: np.ndarray, table: np.ndarray, conditions: Arrays) -> np.ndarray:
        """The table's noise levels, handed to the scheduler."""
        from diffusers import EulerDiscreteScheduler

        scheduler: Any = EulerDiscreteScheduler(prediction_type="sample")
        scheduler.set_timesteps(sigmas=[*table[:, 0].tolist(), 0.0])
        scheduler.sigmas = torch.tensor([*table[:, 0], 0.0], dtype=torch.float32)  # exactly ours, not through betas
        context, state = self.prepare(conditions), torch.from_numpy(x)
        for sigma, time in zip(table[:, 0], scheduler.timesteps, strict=True):
            scheduler.is_scale_input_called = True  # the network scales its own input (EDM)
            state = scheduler.step(self._denoised(state, float(sigma), context), time, state).prev_sample
        return state.numpy()


class WholeGraph(nn.Module):
    """Everything in one graph, as an export of the model by itself would have it."""

    def __init__(self, model: MSDM) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        state: Tensor,
        sigma: Tensor,
        maps: Tensor,
        maps_present: Tensor,
        colour: Tensor,
        colour_present: Tensor,
        token_ids: Tensor,
        token_mask: Tensor,
    ) -> Tensor:
        """State [B, C, H, W], sigma [1] and conditions -> D."""
        given = dict(
            zip(WHOLE_INPUTS[2:], (maps, maps_present, colour, colour_present, token_ids, token_mask), strict=True)
        )
        return self.model(state, sigma, self.model.context(given))


def whole_onnx(model: MSDM, conditions: Arrays, x: np.ndarray) -> bytes:
    """The one graph as ONNX, for exactly these shapes: what is static is fastest in every runtime."""
    example = (torch.from_numpy(x), torch.ones(1), *(torch.from_numpy(conditions[name]) for name in WHOLE_INPUTS[2:]))
    graph = GraphExport("whole", WholeGraph(model), example, WHOLE_INPUTS, ("denoised",), {})
    return onnx_from_module(graph).SerializeToString()


class OnnxWhole(Peer):
    """ONNX Runtime with one graph."""

    name = "ONNX Runtime, one graph, float32"

    def __init__(self, graph: bytes) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = CORES
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def denoise(self, x: np.ndarray, sigma: float, prepared: Any) -> np.ndarray:
        """See :class:`Peer`."""
        return self.session.run(None, {**prepared, "state": x, "sigma": np.array([sigma], np.float32)})[0]


class OpenVinoWhole(Peer):
    """OpenVINO with one graph, for latency; ``bf16`` is what it chooses itself where a processor can."""

    def __init__(self, graph: bytes, precision: str) -> None:
        import openvino

        self.precision = "half" if precision == "bf16" else "float32"
        self.name = f"OpenVINO, one graph, {'bfloat16' if precision == 'bf16' else 'float32'}"
        core = openvino.Core()
        properties = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision}
        self.request = core.compile_model(core.read_model(graph), "CPU", properties).create_infer_request()

    def denoise(self, x: np.ndarray, sigma: float, prepared: Any) -> np.ndarray:
        """See :class:`Peer`."""
        given = {**prepared, "state": x, "sigma": np.array([sigma], np.float32)}
        return np.array(self.request.infer(given, share_inputs=True)[0])


class OpenVinoSplit(Peer):
    """OpenVINO with the bundle's graphs in a plain loop, without the engine."""

    split = True

    def __init__(self, bundle: Bundle, precision: str) -> None:
        from msdm_engine.backends.openvino import OpenVinoBackend, OpenVinoOptions

        self.precision = "half" if precision == "bf16" else "float32"
        self.name = f"OpenVINO, msdm's split graphs, {'bfloat16' if precision == 'bf16' else 'float32'}"
        self.backend = OpenVinoBackend(bundle, options=OpenVinoOptions("CPU", {"inference_precision": precision}))

    def prepare(self, conditions: Arrays) -> Any:
        """Text encoder and conditioner, once for a batch."""
        text = {name: conditions[name] for name in ("token_ids", "token_mask")}
        given = {**conditions, **self.backend.run(TEXT_ENCODER, text)}
        context = self.backend.run(CONDITIONER, {name: given[name] for name in CONDITIONER_INPUTS})
        return {name: value[None] for name, value in context.items()}

    def trajectory(self, x: np.ndarray, table: np.ndarray, conditions: Arrays) -> np.ndarray:
        """The update is in the graph."""
        context, d, zeros = self.prepare(conditions), np.zeros_like(x), np.zeros_like(x)
        for row in table.astype(np.float32):
            out = self.backend.run(DENOISER, self._given(x, d, zeros, row, context))
            x, d = out["state_next"], out["denoised"]
        return x

    def denoise(self, x: np.ndarray, sigma: float, prepared: Any) -> np.ndarray:
        """One step of the graph, D of it."""
        row = np.array([sigma, 0.5, 0.5, 0, 0], np.float32)
        return self.backend.run(DENOISER, self._given(x, x, x, row, prepared))["denoised"]

    @staticmethod
    def _given(x: np.ndarray, d: np.ndarray, z: np.ndarray, row: np.ndarray, context: Arrays) -> Arrays:
        weights = np.ones((1, len(x)), np.float32)
        return {"state": x, "denoised_prev": d, "noise": z, "row": row, "guidance": weights, **context}
