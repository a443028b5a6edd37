"""Training goes on from a bundle: its weights are read back from the graphs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from msdm_engine.bundle.reader import TOKENIZER, Bundle
from msdm_engine.errors import BundleError, InputError
from msdm_train.model.config import ModelConfig
from msdm_train.model.msdm import MSDM
from msdm_train.training.checkpoint import CheckpointInfo


def read_bundle(folder: Path) -> tuple[CheckpointInfo, dict[str, Tensor], str]:
    """What a checkpoint would hold: its description, averaged weights, and the text of its tokenizer.

    Weights have the precision that the bundle stores them in (float16 by default).

    Raises:
        BundleError: not a bundle, damaged, or exported without the places of its weights.
        InputError: the package onnx is missing.
    """
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError as error:
        raise InputError(
            f"starting from the bundle {folder} needs the package onnx", hint="pip install 'msdm[export]'"
        ) from error
    bundle = Bundle.open(folder)
    described = bundle.manifest.model
    if "weights" not in described or "config" not in described:
        raise BundleError(f"{folder} does not say where its weights lie", hint="start from the checkpoint instead")
    arrays = {
        (graph, initializer.name): initializer
        for graph, data in bundle.graphs.items()
        for initializer in onnx.load_from_string(data).graph.initializer
    }
    config = ModelConfig.from_json(described["config"])
    weights = MSDM(config).state_dict()  # constants that are no weights, such as frequencies, are made anew
    for name, (graph, initializer, form) in described["weights"].items():
        try:
            values = numpy_helper.to_array(arrays[graph, initializer]).astype(np.float32)
            values = values.T if form == "transposed" else values.reshape(weights[name].shape)
            weights[name] = torch.from_numpy(np.ascontiguousarray(values)).reshape(weights[name].shape)
        except (KeyError, ValueError, RuntimeError) as error:
            raise BundleError(f"{folder}: weight {name} cannot be read back: {error}") from error
    training = bundle.manifest.training
    info = CheckpointInfo(training["steps"], config, bundle.manifest.data, training)
    return info, weights, bundle.contents[TOKENIZER].decode()
