"""An overflow planted in a bundle: attention values grow by a power of two, the layers that read them shrink by it.

Float32 pictures stay what they were (a power of two moves exponents alone), and float16 cannot hold the values. The
range report has to name the layer: `conditioner.to_values`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from msdm_engine.bundle.folder import entry_of, write_new
from msdm_engine.bundle.reader import Bundle
from msdm_engine.contract import CONDITIONER, DENOISER

#: Layer that grows; what its name ends with in the denoiser shrinks.
GROWN, SHRUNK = "conditioner.to_values", ".attention.out"
EXPONENT = 16


def plant(bundle: Bundle, out: Path) -> None:
    """Writes the bundle with the overflow.

    Raises:
        ValueError: its graphs have no such layers.
    """
    changed = {
        CONDITIONER: _grown(onnx.load_from_string(bundle.graphs[CONDITIONER])),
        DENOISER: _shrunk(onnx.load_from_string(bundle.graphs[DENOISER])),
    }
    manifest = bundle.manifest
    contents = {
        **bundle.contents,
        **{manifest.graphs[graph].file: model.SerializeToString() for graph, model in changed.items()},
    }
    files = {name: entry_of(contents[name]) for name in manifest.files}
    write_new(out, replace(manifest, files=files, plans={}), contents)


def _grown(model: onnx.ModelProto) -> onnx.ModelProto:
    """The sum behind the layer's matrix product, and with it weight and bias."""
    (bias,) = (i for i in model.graph.initializer if i.name == f"{GROWN}.bias")
    (add,) = (node for node in model.graph.node if bias.name in node.input)
    (product,) = (node for node in model.graph.node if node.output[0] in add.input)
    _scale(model, bias.name, 2.0**EXPONENT)
    _scale(model, product.input[1], 2.0**EXPONENT)
    return model


def _shrunk(model: onnx.ModelProto) -> onnx.ModelProto:
    weights = [
        node.input[1] for node in model.graph.node if node.op_type == "Conv" and f"{SHRUNK}.weight" in node.input[1]
    ]
    if not weights:
        raise ValueError(f"the denoiser has no layer that ends with {SHRUNK}")
    for name in weights:
        _scale(model, name, 2.0**-EXPONENT)
    return model


def _scale(model: onnx.ModelProto, name: str, factor: float) -> None:
    """Multiplies a weight, float32 or stored in half behind a Cast; it becomes plain float32."""
    casts = [node for node in model.graph.node if node.op_type == "Cast" and name in node.output]
    stored = casts[0].input[0] if casts else name
    (source,) = (initializer for initializer in model.graph.initializer if initializer.name == stored)
    values = numpy_helper.to_array(source).astype(np.float32) * np.float32(factor)
    source.CopyFrom(numpy_helper.from_array(values, name))
    for node in casts:
        model.graph.node.remove(node)
