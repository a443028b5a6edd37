"""A trained segmenter as one ONNX file, for any runtime."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from pathlib import Path

import torch
from torch.export import Dim

from msdm_engine.contract import CRITIC_INPUTS, CRITIC_OUTPUTS
from msdm_engine.errors import MsdmError
from msdm_train.segmentation.predict import load_segmenter_module

OPSET = 20


def export_segmenter(folder: Path, path: Path) -> dict[str, str]:
    """Writes a segmenter with float32 weights, dynamic in N, and in H and W in multiples of its stride.

    Args:
        folder: checkpoint of a segmenter.
        path: ONNX file to write; whole or not at all.

    Returns:
        the segmenter's identity, which the file holds as metadata.

    Raises:
        InputError: not a segmenter, or damaged.
        MsdmError: the package onnx is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise MsdmError("export needs the package onnx", hint="pip install 'msdm[export]'") from error
    module, identity = load_segmenter_module(folder)
    stride = module.stride
    rows, columns = Dim("rows", min=1, max=512), Dim("columns", min=1, max=512)
    dynamic = {"image": {0: Dim("pictures", min=1, max=4096), 2: stride * rows, 3: stride * columns}}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module,
            (torch.zeros(2, 3, 4 * stride, 5 * stride),),
            input_names=list(CRITIC_INPUTS),
            output_names=list(CRITIC_OUTPUTS),
            dynamic_shapes=dynamic,
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("the exporter returned nothing")
    model = program.model_proto
    for node in model.graph.node:  # the exporter's traces hold paths of this machine
        del node.metadata_props[:]
        node.doc_string = ""
    onnx.helper.set_model_props(model, identity)
    onnx.checker.check_model(model, full_check=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(model.SerializeToString())
    os.replace(temporary, path)
    return identity
