"""Any ONNX file as an encoder, through ONNX Runtime on one CPU thread."""

from __future__ import annotations

import hashlib
from pathlib import Path

import cv2
import numpy as np

from msdm_engine.errors import BackendError
from msdm_train.evaluation.encoder import BATCH, MEAN_RGB, STD_RGB, Batched, pooled

#: Shift and scale of pixels in [0, 1] for each kind of encoder.
RANGES = {
    "onnx": (np.array(MEAN_RGB, np.float32), np.array(STD_RGB, np.float32)),
    "onnx-unit": (np.zeros(3, np.float32), np.ones(3, np.float32)),
    "onnx-signed": (np.full(3, 0.5, np.float32), np.full(3, 0.5, np.float32)),
}


def onnx_encoder(path: Path, kind: str = "onnx") -> Batched:
    """A graph with one picture input [N, 3, H, W], float32 or uint8, whose first output is the embedding.

    Where H and W are fixed in the graph, pictures are resized to them; a fixed N is filled up with copies.

    Args:
        kind: key of :data:`RANGES`; a uint8 input takes pixels in [0, 255] whatever it says.

    Raises:
        BackendError: ONNX Runtime is missing, the file cannot be loaded, or its input is of another kind.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise BackendError(
            "an ONNX encoder needs ONNX Runtime", hint='install one: pip install "msdm[evaluate,cpu]"'
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        data = path.read_bytes()
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise BackendError(f"encoder {path} cannot be loaded: {error}", hint="name an ONNX file") from error
    inputs = session.get_inputs()
    shape = inputs[0].shape
    if len(inputs) != 1 or len(shape) != 4 or shape[1] != 3 or inputs[0].type not in ("tensor(float)", "tensor(uint8)"):
        told = ", ".join(f"{i.name} {i.shape} {i.type}" for i in inputs)
        raise BackendError(f"encoder {path} takes {told}", note="legal: one input [N, 3, H, W], float32 or uint8")
    size = (shape[2], shape[3]) if all(isinstance(side, int) for side in shape[2:]) else None
    batch = shape[0] if isinstance(shape[0], int) else BATCH

    def forward(images: np.ndarray) -> np.ndarray:
        x = _resized(images, size)
        x = np.concatenate([x, np.repeat(x[-1:], batch - len(x), 0)]) if isinstance(shape[0], int) else x
        if inputs[0].type == "tensor(float)":
            shift, scale = RANGES[kind]
            x = (x.astype(np.float32) / 255 - shift) / scale
        x = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
        return pooled(session.run(None, {inputs[0].name: x})[0][: len(images)])

    identity = {"name": f"{kind}:{path.name}", "source": "file", "sha256": hashlib.sha256(data).hexdigest()}
    return Batched(identity, forward, batch)


def _resized(images: np.ndarray, size: tuple[int, int] | None) -> np.ndarray:
    if size is None or images.shape[1:3] == size:
        return images
    way = cv2.INTER_AREA if size[0] < images.shape[1] else cv2.INTER_CUBIC
    return np.stack([cv2.resize(image, size[::-1], interpolation=way) for image in images])
