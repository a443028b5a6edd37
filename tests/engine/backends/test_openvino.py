"""The reference bundle on OpenVINO, against ONNX Runtime; its options and its errors."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Thread

import numpy as np
import pytest

from msdm_engine import Bundle
from msdm_engine.backends import open_backend
from msdm_engine.backends.openvino import OpenVinoBackend, OpenVinoOptions, parse_options
from msdm_engine.contract import CRITIC_INPUTS, TEXT_ENCODER
from msdm_engine.devices.host import HostDevice
from msdm_engine.errors import BackendError, RequestError

SIDE = 32


@pytest.fixture(scope="module")
def openvino(reference: Bundle) -> Iterator[OpenVinoBackend]:
    pytest.importorskip("openvino", reason="needs the extra openvino")
    backend = OpenVinoBackend(reference, threads=1)
    yield backend
    backend.close()


def text(seed: int) -> dict[str, np.ndarray]:
    ids = np.random.default_rng(seed).integers(5, 100, (1, 48))
    return {"token_ids": ids, "token_mask": np.ones((1, 48), np.float32)}


def picture(side: int = SIDE, batch: int = 1) -> dict[str, np.ndarray]:
    return {CRITIC_INPUTS[0]: np.random.default_rng(3).uniform(-1, 1, (batch, 3, side, side)).astype(np.float32)}


@pytest.mark.parametrize("graph", ["text_encoder", "critic"])
def test_it_computes_what_onnxruntime_does(openvino: OpenVinoBackend, reference: Bundle, graph: str) -> None:
    pytest.importorskip("onnxruntime")
    given = text(1) if graph == TEXT_ENCODER else picture()
    theirs = open_backend("onnxruntime", reference, threads=1).run(graph, given)
    ours = openvino.run(graph, given)
    for name, value in theirs.items():
        # float32 sums in another order: 1e-5 of the largest value is a hundred roundings.
        np.testing.assert_allclose(ours[name], value, atol=1e-5 * float(np.abs(value).max()), rtol=0)


def test_no_text_at_all_is_finite_in_bfloat16(reference: Bundle) -> None:
    pytest.importorskip("openvino", reason="needs the extra openvino")
    backend = OpenVinoBackend(reference, threads=1, options=parse_options("CPU,inference_precision=bf16"))
    nothing: dict[str, np.ndarray] = {
        "token_ids": np.zeros((1, 48), np.int64),
        "token_mask": np.zeros((1, 48), np.float32),
    }
    assert np.isfinite(backend.run(TEXT_ENCODER, nothing)["token_states"]).all()


def test_a_result_is_not_written_again_by_the_next_call(openvino: OpenVinoBackend) -> None:
    first = openvino.run(TEXT_ENCODER, text(1))["token_states"]
    kept = first.copy()
    openvino.run(TEXT_ENCODER, text(2))
    assert np.array_equal(first, kept)


def test_each_shape_is_compiled_once(openvino: OpenVinoBackend) -> None:
    shapes = (("image", (1, 3, SIDE, SIDE)),)
    assert openvino.compiled("critic", shapes) is openvino.compiled("critic", shapes)
    assert openvino.run("critic", picture(64))["critic_maps"].shape == (1, 3, 64, 64)


def test_two_threads_at_once_get_their_own_results(reference: Bundle) -> None:
    pytest.importorskip("openvino", reason="needs the extra openvino")
    backend = OpenVinoBackend(reference, threads=1, parallel=2)
    alone = [backend.run(TEXT_ENCODER, text(seed))["token_states"] for seed in (1, 2)]
    found: dict[int, list[np.ndarray]] = {1: [], 2: []}

    def many(seed: int) -> None:
        found[seed].extend(backend.run(TEXT_ENCODER, text(seed))["token_states"] for _ in range(20))

    threads = [Thread(target=many, args=(seed,)) for seed in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed, expected in zip((1, 2), alone, strict=True):
        assert len(found[seed]) == 20 and all(np.array_equal(one, expected) for one in found[seed])


def test_arithmetic_is_float32_unless_the_name_says_otherwise() -> None:
    assert parse_options("") == OpenVinoOptions("CPU", {"inference_precision": "f32"})
    assert parse_options("CPU,inference_precision=bf16").shown == "inference_precision=bf16"


def test_the_identity_says_what_decides_the_bits(openvino: OpenVinoBackend) -> None:
    told = {
        name: openvino.identity[name] for name in ("backend", "provider", "threads", "provider_options", "rewrites")
    }
    assert told == {
        "backend": "openvino", "provider": "CPU", "threads": "1", "provider_options": "inference_precision=f32",
        "rewrites": "linear layers joined, convolutions split",
    }  # fmt: skip


@pytest.mark.parametrize("words", ["CPU,inference_precison=bf16", "CPU,inference_precision", "CPU,"])
def test_an_option_that_does_not_exist_is_refused(words: str) -> None:
    with pytest.raises(RequestError, match="of the backend 'openvino'"):
        parse_options(words)


def test_a_device_that_is_not_there_is_refused(reference: Bundle) -> None:
    pytest.importorskip("openvino", reason="needs the extra openvino")
    with pytest.raises(BackendError, match="has no device 'NPU9'"):
        open_backend("openvino:NPU9", reference)


def test_a_graph_that_is_not_open_is_refused(openvino: OpenVinoBackend) -> None:
    with pytest.raises(BackendError, match="graph 'painter' is not open"):
        openvino.run("painter", {})


def test_wrong_inputs_are_refused(openvino: OpenVinoBackend) -> None:
    with pytest.raises(BackendError, match=r"OpenVINO .* the graph 'critic'"):
        openvino.run("critic", {"picture": np.zeros((1, 3, SIDE, SIDE), np.float32)})


def test_a_graph_on_buffers_computes_what_a_run_does(openvino: OpenVinoBackend) -> None:
    given = picture()["image"]
    expected = openvino.run("critic", {"image": given})["critic_maps"]
    with HostDevice() as device:
        image = device.buffer("image", given.shape, given.dtype)
        maps = device.buffer("maps", given.shape, given.dtype)
        work = openvino.bind("critic", device, {"image": image, "critic_maps": maps})
        image.array()[...] = given
        stream = device.stream("compute")
        stream.submit(work)
        stream.synchronize()
        assert np.array_equal(maps.array(), expected)
    assert (work.reads, work.writes) == ((image,), (maps,))
