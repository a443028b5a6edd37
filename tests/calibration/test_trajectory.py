from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from msdm_calibration.data import CalibrationData
from msdm_calibration.marked import activations_of, load_graph, with_outputs
from msdm_calibration.trajectory import Sessions, Visit, batches, follow
from msdm_engine.bundle.reader import Bundle
from msdm_engine.contract import CONDITIONER, CRITIC, DENOISER, TEXT_ENCODER
from msdm_engine.engine import Engine
from msdm_engine.errors import BackendError
from msdm_engine.pairs import PairRequest
from msdm_engine.sampling.guidance import Guidance


@pytest.fixture
def requests(pack_path: Path) -> list[PairRequest]:
    with CalibrationData(pack_path, 0) as data:
        return [window.request for window in data.windows(3, 32)]


def marked(bundle: Bundle) -> Sessions:
    models = {}
    for name, data in bundle.graphs.items():
        model = load_graph(data)
        made = [activation.tensor for activation in activations_of(model) if activation.node]
        models[name] = with_outputs(model, made).SerializeToString()
    return Sessions(models)


def test_pairs_are_those_of_the_engine(bundle: Bundle, requests: list[PairRequest]) -> None:
    guidance = Guidance(text=1.5)
    found = follow(bundle, marked(bundle), requests, lambda visit: None, guidance=guidance)
    with Engine.open(bundle, threads=1) as engine:
        expected = list(engine.sample(requests, bundle.manifest.sampling.changed(batch=3), guidance))
    for pair, other in zip(found, expected, strict=True):
        # Marked graphs are not fused as plain ones are: a value may round to the next of 256.
        assert np.abs(pair.image.astype(int) - other.image).max() <= 1


def test_visits_follow_the_table(bundle: Bundle, requests: list[PairRequest]) -> None:
    visits: list[Visit] = []
    follow(bundle, marked(bundle), requests, visits.append)
    table = bundle.manifest.sampling.table()
    texts = [visit.graph for visit in visits].count(TEXT_ENCODER)
    assert texts == len({request.metadata for request in requests})
    assert [visit.graph for visit in visits[texts:]] == [CONDITIONER, *[DENOISER] * len(table), CRITIC]
    steps = [visit for visit in visits if visit.graph == DENOISER]
    assert [visit.step for visit in steps] == list(range(len(table)))
    assert [visit.sigma for visit in steps] == [float(np.float32(row[0])) for row in table]
    for visit, following in itertools.pairwise(steps):
        assert np.array_equal(visit.outputs["state_next"], following.inputs["state"])
        # What is marked is the step's own: the second convolution's tanh is the denoised estimate.
        assert np.allclose(np.tanh(visit.more["mixed"]), visit.outputs["denoised"], atol=1e-6)  # float32 tanh


def test_a_batch_is_seen_alike_whatever_ran_before(bundle: Bundle, requests: list[PairRequest]) -> None:
    backend = marked(bundle)

    def seen() -> list[tuple[str, float]]:
        visits: list[tuple[str, float]] = []
        follow(
            bundle,
            backend,
            requests[:1],
            lambda v: visits.append((v.graph, float(next(iter(v.outputs.values())).sum()))),
        )
        return visits

    assert seen() == seen()


def test_activations_name_their_layers(bundle: Bundle) -> None:
    found = {activation.tensor: activation for activation in activations_of(load_graph(bundle.graphs[DENOISER]))}
    assert found["hidden"].layer == "unet.first" and found["hidden"].op == "Conv"
    assert found["hidden"].readers == (("conv_second", "Conv", 0),)
    assert found["denoised"].layer == "unet.second"  # the tanh behind the second convolution
    assert found["state"].op == "Input" and found["state"].node == ""
    assert "model.unet.first.weight" not in found
    identity = {activation.tensor: activation for activation in activations_of(load_graph(bundle.graphs[CONDITIONER]))}
    assert identity["map_features_0"].same_values_as == "maps"


def test_a_product_without_a_named_weight_belongs_to_its_bias() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "val_1"], ["product"], "product"),
        helper.make_node("Add", ["product", "model.head.bias"], ["sum"], "sum"),
    ]
    weights = {"val_1": np.ones((2, 2), np.float32), "model.head.bias": np.ones(2, np.float32)}
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2]) for name in ("x", "sum"))
    constants = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    model = helper.make_model(helper.make_graph(nodes, "g", [x], [y], constants))
    found = activations_of(load_graph(model.SerializeToString()))
    assert [(activation.tensor, activation.layer) for activation in found] == [
        ("x", ""),
        ("product", "head"),
        ("sum", "head"),
    ]


def test_an_unknown_tensor_is_refused(bundle: Bundle) -> None:
    with pytest.raises(ValueError, match="nowhere"):
        with_outputs(load_graph(bundle.graphs[DENOISER]), ["nowhere"])


def test_a_graph_that_does_not_load_is_an_error() -> None:
    with pytest.raises(BackendError, match="denoiser"):
        Sessions({DENOISER: b"no graph"})


def test_a_graph_that_fails_is_an_error(bundle: Bundle) -> None:
    with pytest.raises(BackendError, match="critic"):
        marked(bundle).run(CRITIC, {"image": np.zeros((1, 3), np.float32)})


def test_batches_are_consecutive(requests: list[PairRequest]) -> None:
    assert [[request.index for request in batch] for batch in batches(requests, 2)] == [[0, 1], [2]]
