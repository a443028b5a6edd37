"""The written nodes compute what the recipe says: codes, factors by noise level, migration and bias."""

from __future__ import annotations

import numpy as np
import pytest

from msdm_calibration.marked import with_outputs
from msdm_calibration.quantize.calibrate import subject_of
from msdm_calibration.quantize.grids import GRIDS
from msdm_calibration.quantize.rewrite import Recipe, as_stored, migrated, quantised
from msdm_calibration.quantize.samples import Layer
from msdm_calibration.quantize.settings import QuantizeSettings
from msdm_calibration.trajectory import Visit
from msdm_engine.bundle.reader import Bundle
from msdm_engine.contract import DENOISER
from msdm_engine.errors import BundleError


@pytest.mark.parametrize("to", ["int8", "fp8"])
def test_the_graph_computes_what_the_recipe_says_at_every_noise_level(settings: QuantizeSettings, to: str) -> None:
    grid = GRIDS[to]
    subject, _ = subject_of(settings, Bundle.open(settings.bundle))
    target = subject.by_node["conv_sized"]
    moved = np.exp2(np.arange(16) % 3 - 1).astype(np.float32)
    levels = np.exp2(np.linspace(5, -7, 6).round()).astype(np.float32)
    scales = np.linspace(0.01, 0.02, 16).astype(np.float32)
    bias = np.linspace(-1, 1, 16).astype(np.float32)
    # A power of two: dividing by it and multiplying by its inverse round alike, so no code is a tie for one of them.
    scale = 2.0**-6
    recipe = Recipe(scale, scales, moved, bias, levels)
    model = quantised(subject.model, subject.by_node, {target.node: recipe}, grid, subject.sigmas)
    layer = Layer(subject, target.node)
    seen: list[int] = []

    def see(visit: Visit) -> None:
        if visit.graph != DENOISER or visit.step is None:
            return
        factor = levels[visit.step]
        x = visit.more["sized"] / moved.reshape(1, -1, 1, 1) / factor
        weight = grid.rounded(migrated(target, moved), target.per_output(scales))
        expected = factor * layer(grid.rounded(x, scale), weight) + bias.reshape(1, -1, 1, 1)
        # The same products; a fused sum may take them in another order.
        assert visit.more["mixed"] == pytest.approx(expected, rel=1e-5, abs=1e-5 * float(np.abs(expected).max()))
        seen.append(visit.step)

    subject.follow(
        subject.sessions(with_outputs(model, ["sized", "mixed"]).SerializeToString()), subject.requests[:2], see
    )
    assert seen == [0, 1, 2, 3, 4, 5]


def test_inputs_that_two_targets_read_have_one_pair_of_nodes(settings: QuantizeSettings) -> None:
    subject, _ = subject_of(settings, Bundle.open(settings.bundle))
    recipes = {
        node: Recipe(0.1, np.full(16, 0.01, np.float32), None, np.zeros(16, np.float32)) for node in subject.by_node
    }
    model = subject.model
    next(node for node in model.graph.node if node.name == "conv_sized").input[0] = "bounded"
    written = quantised(model, subject.by_node, recipes, GRIDS["int8"], subject.sigmas)
    assert [node.op_type for node in written.graph.node].count("QuantizeLinear") == 1


def test_scales_in_half_are_rounded_up_and_never_zero() -> None:
    scales = np.array([0.1, 1e-12, 1 / 3], np.float32)
    stored = as_stored(scales, np.dtype(np.float16))
    assert (stored.astype(np.float32) >= scales).all()
    assert stored[1] > 0
    assert stored.astype(np.float32)[[0, 2]] == pytest.approx(scales[[0, 2]], rel=2.0**-10)


def test_a_node_that_the_graph_lacks_is_named(settings: QuantizeSettings) -> None:
    subject, _ = subject_of(settings, Bundle.open(settings.bundle))
    recipe = Recipe(1.0, np.ones(16, np.float32), None, np.zeros(16, np.float32))
    with pytest.raises(BundleError, match="has no node gone"):
        quantised(subject.model, subject.by_node, {"gone": recipe}, GRIDS["int8"], subject.sigmas)
