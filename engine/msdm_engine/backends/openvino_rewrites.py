"""What OpenVINO does not see by itself: the same graph with less work around its matrix products.

Both rewrites are exact in real numbers: a row of a matrix product and a channel of a convolution do not know what
other rows and channels are computed beside them. Bits may differ, because OpenVINO then fuses and rounds at other
places. They work on a graph whose shapes are fixed. What each gives stands in docs/runtime.md.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

#: What a backend's identity says of them: bits depend on it.
REWRITES = "linear layers joined, convolutions split"


@dataclass(frozen=True)
class _Linear:
    """``input @ weight.T + bias``, the sum being the node ``end``."""

    weight: Any
    bias: Any
    end: Any


def join_linear_layers(model: Any) -> int:
    """Linear layers that read the same [B, E] become one, split afterwards; returns how many were joined.

    A denoiser has one for each residual block, of a row or a few: what they cost is being started.
    """
    import openvino.opset13 as ops

    groups: dict[tuple[str, int], list[_Linear]] = defaultdict(list)
    sources: dict[tuple[str, int], Any] = {}
    for node in model.get_ordered_ops():
        linear = _linear(node, ops)
        if linear is not None:
            source = node.input_value(0)
            key = source.get_node().get_name(), source.get_index()
            groups[key].append(linear)
            sources[key] = source
    joined = 0
    for key, linears in groups.items():
        if len(linears) < 2:
            continue
        product = ops.matmul(sources[key], ops.concat([one.weight for one in linears], 0), False, True)
        whole = ops.add(product, ops.concat([one.bias for one in linears], 1))
        widths = [one.weight.get_shape()[0] for one in linears]
        parts = ops.variadic_split(whole, ops.constant(1), ops.constant(widths))
        for number, one in enumerate(linears):
            one.end.output(0).replace(parts.output(number))
        joined += len(linears)
    return joined


def split_convolutions(model: Any) -> int:
    """A convolution whose channels are split afterwards becomes one for each part; returns how many were split.

    The split copies both parts. Weights in eight-bit codes are cut as codes, so that OpenVINO still knows them.
    """
    import openvino.opset13 as ops

    count = 0
    for split in model.get_ordered_ops():
        if split.get_type_name() != "Split":
            continue
        add = split.input_value(0).get_node()
        if add.get_type_name() != "Add":
            continue
        convolution, bias = add.input_value(0).get_node(), add.input_value(1)
        if convolution.get_type_name() != "Convolution":
            continue
        weight = convolution.input_value(1)
        stored = _is_stored(weight)
        if not (stored or _is_coded(weight)):
            continue
        if _only_reader(convolution) is None or _only_reader(add) is None or not _is_constant(bias):
            continue
        if not _is_one(split.input_value(1)) or _is_output(split):
            continue  # along another axis than that of the channels, or with a name that must stay
        channels = convolution.get_output_shape(0)[1]
        if list(bias.get_shape()) != [1, channels, 1, 1]:
            continue
        given = convolution.get_attributes()
        window = [given[name] for name in ("strides", "pads_begin", "pads_end", "dilations")]
        width = channels // len(split.outputs())
        for number, output in enumerate(split.outputs()):
            low, high = number * width, (number + 1) * width
            cut = _rows(weight, 0, low, high, ops) if stored else _coded_rows(weight, low, high, ops)
            part = ops.convolution(convolution.input_value(0), cut, *window)
            output.replace(ops.add(part, _rows(bias, 1, low, high, ops)).output(0))
        count += 1
    return count


def _linear(node: Any, ops: Any) -> _Linear | None:
    """The layer that begins with this product, if it is one of constants on a [B, E] and its sum is no output."""
    if node.get_type_name() != "MatMul" or not _is_constant(node.input_value(1)):
        return None
    if len(node.get_input_shape(0)) != 2 or node.get_attributes()["transpose_a"]:
        return None
    end = _only_reader(node)
    while end is not None and end.get_type_name() == "Multiply" and _is_one(end.input_value(1)):
        end = _only_reader(end)  # the factors of ONNX's Gemm
    if end is None or end.get_type_name() != "Add" or not _is_constant(end.input_value(1)):
        return None
    if _is_output(end) or end.input_value(1).get_shape()[-1:] != end.get_output_shape(0)[-1:]:
        return None
    weight = node.input_value(1)
    if not node.get_attributes()["transpose_b"]:
        weight = ops.transpose(weight, ops.constant([1, 0])).output(0)
    return _Linear(weight, ops.reshape(end.input_value(1), ops.constant([1, -1]), False).output(0), end)


def _only_reader(node: Any) -> Any | None:
    readers = [reader.get_node() for reader in node.output(0).get_target_inputs()]
    readers = [reader for reader in readers if reader.get_type_name() != "ShapeOf"]  # of a bias that takes its rank
    return readers[0] if len(readers) == 1 else None


def _is_output(node: Any) -> bool:
    readers = [reader.get_node() for output in node.outputs() for reader in output.get_target_inputs()]
    return any(reader.get_type_name() == "Result" for reader in readers)


def _rows(value: Any, axis: int, low: int, high: int, ops: Any) -> Any:
    low, high, step, along = (ops.constant([number]) for number in (low, high, 1, axis))
    return ops.slice(value, low, high, step, along)


def _coded_rows(value: Any, low: int, high: int, ops: Any) -> Any:
    """``(codes - zeros) * scales`` of some output channels, with constants of its own."""
    codes, zeros, scales = _coded(value)
    by_channel = [high - low, 1, 1, 1]
    cut = ops.convert(ops.constant(codes[low:high]), "f32")
    cut = ops.subtract(cut, ops.convert(ops.constant(zeros[low:high].reshape(by_channel)), "f32"))
    return ops.multiply(cut, ops.constant(scales[low:high].reshape(by_channel)))


def _coded(value: Any) -> tuple[Any, Any, Any]:
    """Codes [C, I, h, w] int8, zeros [C] int8 and scales [C] float32 of :func:`_is_coded`."""
    centred, scales = (value.get_node().input_value(number).get_node() for number in (0, 1))
    codes, zeros = (centred.input_value(number).get_node() for number in (0, 1))
    return _data(codes), _data(zeros).reshape(-1), _data(scales).reshape(-1)


def _data(node: Any) -> Any:
    """Numbers of a constant behind changes of its shape and type."""
    while node.get_type_name() != "Constant":
        node = node.input_value(0).get_node()
    return node.get_data()


def _is_coded(value: Any) -> bool:
    """ONNX's DequantizeLinear of constant codes, a scale and a zero for each output channel, as OpenVINO reads it."""
    node = value.get_node()
    if node.get_type_name() != "Multiply" or node.input_value(0).get_node().get_type_name() != "Subtract":
        return False
    if not _is_constant(value):
        return False
    codes, zeros, scales = _coded(value)
    return str(codes.dtype) == "int8" and len(zeros) == len(scales) == len(codes)


def _is_stored(value: Any) -> bool:
    """A constant of floats, as it is or converted from half."""
    node = value.get_node()
    if node.get_type_name() == "Convert":
        node = node.input_value(0).get_node()
    return node.get_type_name() == "Constant" and node.get_output_element_type(0).is_real()


def _is_constant(value: Any) -> bool:
    """Computed from constants and fixed shapes alone."""
    node = value.get_node()
    if node.get_type_name() in ("Constant", "ShapeOf"):
        return True
    inputs = node.input_values()
    return bool(inputs) and all(_is_constant(one) for one in inputs)


def _is_one(value: Any) -> bool:
    node = value.get_node()
    return node.get_type_name() == "Constant" and bool((node.get_data() == 1).all())
