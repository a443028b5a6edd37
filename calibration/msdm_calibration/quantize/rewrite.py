"""Writes quantise/dequantise nodes into a graph, whatever the precision of its rest.

TensorRT takes explicit Q/DQ only. Both sit at the inputs of a node of matrix work: weights are stored as codes behind a
DequantizeLinear with one scale for each output channel; the activation passes QuantizeLinear and DequantizeLinear with
one scale and zero point 0 (TensorRT has no other). Biases stay in the precision of the rest: they are added to sums of
32 bits, where rounding them would save nothing.

Activations of a diffusion network change their size along the trajectory, by a factor of ten and more where the
noise level modulates them, and a scale of TensorRT is a constant. So an input may be divided by a power of two that is
looked up by the noise level, and the output multiplied by it: the same numbers in float32, and the grid is used at
every level.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, shape_inference, version_converter

from msdm_calibration.quantize.grids import LEAST_OPSET, Grid
from msdm_calibration.quantize.targets import Target
from msdm_engine.contract import ROW
from msdm_engine.errors import BundleError

LEVEL_INDEX = "noise_level_index"
HALF_OR_SINGLE: dict[int, np.dtype] = {
    TensorProto.FLOAT: np.dtype(np.float32),
    TensorProto.FLOAT16: np.dtype(np.float16),
}


@dataclass(frozen=True)
class Recipe:
    """How one node is quantised.

    Args:
        scale: of its first input, after migration.
        weight_scales: [O] float32, after migration.
        migration: [I] powers of two that the input is divided by and the weight multiplied with; None: ones.
        bias: [O] float32: the node's own bias, corrected for the mean of what rounding does.
        levels: [N] powers of two by calibrated noise level, that the input is divided by and the output multiplied
            with; None: ones.
    """

    scale: float
    weight_scales: np.ndarray
    migration: np.ndarray | None
    bias: np.ndarray
    levels: np.ndarray | None = None


def migrated(target: Target, migration: np.ndarray | None) -> np.ndarray:
    """The weight that takes the migrated input."""
    return target.weight if migration is None else target.weight * target.per_input(migration)


def _of_rank(target: Target, levels: np.ndarray) -> np.ndarray:
    """[N] as [N, 1, 1, 1] for a convolution, so that the factor of a step has as many axes as the map.

    A product of different ranks is planar in OpenVINO's CPU plugin, and each would cost a change of the layout before
    and behind it: 51 ms a step of the reference bundle instead of 34, in turns on one core.
    """
    return levels.reshape(-1, 1, 1, 1) if target.op == "Conv" else levels


def as_stored(scale: np.ndarray | float, dtype: np.dtype) -> np.ndarray:
    """Scales in the type of the rest, rounded up, so that nothing saturates which did not; never zero."""
    wanted = np.asarray(scale, np.float32)
    stored = np.maximum(wanted.astype(dtype), np.finfo(dtype).smallest_subnormal)
    short = stored.astype(np.float32) < wanted
    return np.where(short, np.nextafter(stored, dtype.type(np.inf)), stored).astype(dtype)


def quantised(
    model: onnx.ModelProto,
    targets: Mapping[str, Target],
    recipes: Mapping[str, Recipe],
    grid: Grid,
    sigmas: np.ndarray,
) -> onnx.ModelProto:
    """The graph with the nodes of ``recipes`` quantised; all others are as they were.

    Args:
        model: the graph that the targets were found in, or one with the same nodes by name, such as its typed form.
        targets: by node.
        sigmas: [N] calibrated noise levels, descending; a step takes the factor of the nearest one, by ratio.

    Raises:
        BundleError: a node is not in the graph, or its weight is no initializer there.
    """
    out = onnx.ModelProto()
    out.CopyFrom(model)
    if out.opset_import[0].version < LEAST_OPSET:
        out = version_converter.convert_version(out, LEAST_OPSET)
    missing = recipes.keys() - {node.name for node in out.graph.node}
    if missing:
        raise BundleError(f"the graph '{model.graph.name}' has no node {sorted(missing)[0]}", hint="export it again")
    writer = _Writer(out, grid, sigmas)
    nodes = writer.level_nodes() if any(recipe.levels is not None for recipe in recipes.values()) else []
    for node in out.graph.node:
        if node.name not in recipes:
            nodes.append(node)
            continue
        target, recipe = targets[node.name], recipes[node.name]
        nodes += [*writer.before(node, target, recipe), node, *writer.after(node, target, recipe)]
    initializers = [*out.graph.initializer, *writer.constants]
    read = {name for node in nodes for name in node.input}
    del out.graph.node[:], out.graph.initializer[:], out.graph.value_info[:]
    out.graph.node.extend(nodes)
    out.graph.initializer.extend(i for i in initializers if i.name in read)
    out = shape_inference.infer_shapes(out, check_type=True, strict_mode=True)
    onnx.checker.check_model(out, full_check=True)
    return out


class _Writer:
    def __init__(self, model: onnx.ModelProto, grid: Grid, sigmas: np.ndarray) -> None:
        self.grid, self.sigmas = grid, sigmas
        self.kinds = {i.name: i.data_type for i in model.graph.initializer}
        self.constants: list[onnx.TensorProto] = []
        self.weight_kinds: dict[str, int] = {}
        self._written: dict[tuple[str, bytes, bytes], str] = {}

    def level_nodes(self) -> list[onnx.NodeProto]:
        """Nodes that find the step's noise level among the calibrated ones: its number, int64 [1]."""
        edges = np.sqrt(self.sigmas[1:] * self.sigmas[:-1]).astype(np.float32)
        first = self._constant("noise_level_row_first", np.array([0], np.int64))
        compared = self._constant("noise_level_edges", edges)
        return [
            helper.make_node("Gather", [ROW, first], ["noise_level"], name="noise_level", axis=0),
            helper.make_node("Less", ["noise_level", compared], ["noise_level_below"], name="noise_level_below"),
            helper.make_node(
                "Cast", ["noise_level_below"], ["noise_level_ones"], name="noise_level_ones", to=TensorProto.FLOAT
            ),
            helper.make_node(
                "ReduceSum", ["noise_level_ones", first], ["noise_level_count"], name="noise_level_count", keepdims=1
            ),
            helper.make_node(
                "Cast", ["noise_level_count"], [LEVEL_INDEX], name="noise_level_index", to=TensorProto.INT64
            ),
        ]

    def before(self, node: onnx.NodeProto, target: Target, recipe: Recipe) -> list[onnx.NodeProto]:
        """The nodes that go before ``node``, whose inputs are changed to theirs."""
        dtype = self._dtype(node)
        made = self._activation(node, target, recipe, dtype) + self._weight(node, target, recipe, dtype)
        del node.input[2:]
        if recipe.levels is None and recipe.bias.any():
            if node.op_type == "MatMul":
                raise BundleError(f"node {node.name} has no place for a bias", hint="export the graph again")
            node.input.append(self._constant(f"{node.name}_bias", recipe.bias.astype(dtype)))
        return made

    def after(self, node: onnx.NodeProto, target: Target, recipe: Recipe) -> list[onnx.NodeProto]:
        """Where the input was divided by its level's factor: the product with it, and the undivided bias."""
        if recipe.levels is None:
            return []
        dtype = HALF_OR_SINGLE[self.weight_kinds[node.name]]
        table = self._constant(f"{node.name}_levels", _of_rank(target, recipe.levels).astype(dtype))
        shape = (1, -1, 1, 1) if target.op == "Conv" else (-1,)
        bias = self._constant(f"{node.name}_bias", recipe.bias.astype(dtype).reshape(shape))
        output, stem = node.output[0], f"{node.name}_output"
        node.output[0] = f"{stem}_divided"
        return [
            helper.make_node("Gather", [table, LEVEL_INDEX], [f"{stem}_factor"], name=f"{stem}_factor", axis=0),
            helper.make_node("Mul", [f"{stem}_divided", f"{stem}_factor"], [f"{stem}_whole"], name=f"{stem}_whole"),
            helper.make_node("Add", [f"{stem}_whole", bias], [output], name=f"{stem}_with_bias"),
        ]

    def _dtype(self, node: onnx.NodeProto) -> np.dtype:
        kind = self.kinds.get(node.input[1])
        if kind not in HALF_OR_SINGLE:
            raise BundleError(
                f"the weight of node {node.name} is no initializer of float32 or float16", hint="export the graph again"
            )
        self.weight_kinds[node.name] = kind
        return HALF_OR_SINGLE[kind]

    def _activation(
        self, node: onnx.NodeProto, target: Target, recipe: Recipe, dtype: np.dtype
    ) -> list[onnx.NodeProto]:
        source, scale = node.input[0], as_stored(recipe.scale, dtype)
        parts = (recipe.migration, recipe.levels)
        key = source, scale.tobytes(), b"|".join(b"" if part is None else part.tobytes() for part in parts)
        if key in self._written:
            node.input[0] = self._written[key]
            return []
        stem = f"{node.name}_input"
        made, divisor = self._divisor(stem, target, recipe, dtype)
        if divisor:
            made.append(helper.make_node("Mul", [source, divisor], [f"{stem}_divided"], name=f"{stem}_divided"))
            source = f"{stem}_divided"
        given = [
            self._constant(f"{stem}_scale", scale),
            self._constant(f"{stem}_zero", np.zeros((), self.grid.dtype)),
        ]
        codes, values = f"{stem}_{self.grid.name}", f"{stem}_dequantized"
        made += [
            helper.make_node("QuantizeLinear", [source, *given], [codes], name=f"{stem}_quantize"),
            helper.make_node("DequantizeLinear", [codes, *given], [values], name=f"{stem}_dequantize"),
        ]
        node.input[0] = self._written[key] = values
        return made

    def _divisor(self, stem: str, target: Target, recipe: Recipe, dtype: np.dtype) -> tuple[list[onnx.NodeProto], str]:
        """One factor for the map: that of the channels, of the level, or their product, which is small."""
        made, names = [], []
        if recipe.levels is not None:
            table = self._constant(f"{stem}_levels", _of_rank(target, 1 / recipe.levels).astype(dtype))
            names.append(f"{stem}_level")
            made.append(helper.make_node("Gather", [table, LEVEL_INDEX], names, name=names[0], axis=0))
        if recipe.migration is not None:
            shape = (1, -1, 1, 1) if target.op == "Conv" else (-1,)
            names.append(self._constant(f"{stem}_divisor", (1 / recipe.migration).astype(dtype).reshape(shape)))
        if len(names) == 2:
            made.append(helper.make_node("Mul", names, [f"{stem}_factor"], name=f"{stem}_factor"))
            names = [f"{stem}_factor"]
        return made, names[0] if names else ""

    def _weight(self, node: onnx.NodeProto, target: Target, recipe: Recipe, dtype: np.dtype) -> list[onnx.NodeProto]:
        scales = as_stored(recipe.weight_scales, dtype)
        weight = migrated(target, recipe.migration)
        codes = self.grid.codes(weight, target.per_output(scales.astype(np.float32)))
        stem = f"{node.name}_weight"
        given = [
            self._constant(f"{stem}_{self.grid.name}", codes),
            self._constant(f"{stem}_scales", scales),
            self._constant(f"{stem}_zeros", np.zeros(scales.shape, self.grid.dtype)),
        ]
        values = f"{stem}_dequantized"
        node.input[1] = values
        return [helper.make_node("DequantizeLinear", given, [values], name=f"{stem}_dequantize", axis=target.axis)]

    def _constant(self, name: str, values: np.ndarray) -> str:
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name
