"""The device ``cuda`` on a rehearsed runtime: order, capture, replay, errors, and what is freed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from msdm_engine.devices.contract import Work
from msdm_engine.devices.cuda import CudaDevice
from msdm_engine.devices.cuda_calls import DOCTOR
from msdm_engine.errors import BackendError, DeviceError, DeviceMemoryError
from msdm_engine.rehearsal.cuda import ILLEGAL_ADDRESS, NO_MEMORY, RehearsedCuda

F32 = np.dtype(np.float32)


def names(runtime: RehearsedCuda, since: int) -> list[str]:
    return [call.name for call in runtime.calls[since:]]


def doubled(device: CudaDevice, kernel: Any, shape: tuple[int, ...] = (4,)) -> tuple[Any, Any, Any, Any, Work]:
    """host -> a, b = 2 a, b -> back: buffers and the work."""
    host, back = device.buffer("host", shape, F32, "host"), device.buffer("back", shape, F32, "host")
    a, b = device.buffer("a", shape, F32), device.buffer("b", shape, F32)
    return host, a, b, back, kernel("double", lambda x: 2 * x, [a], b)


def test_memory_is_zeroed_and_says_what_it_is(device: CudaDevice, view: Callable[..., np.ndarray]) -> None:
    buffer = device.buffer("tables", (2, 3), F32)
    assert (buffer.place, buffer.shape, buffer.dtype, buffer.nbytes) == ("device", (2, 3), F32, 24)
    assert not view(buffer).any()  # the rehearsed memory is not zero by itself
    pinned = device.buffer("pinned", (5,), np.dtype(np.int64), "host")
    assert pinned.array().tolist() == [0] * 5
    pinned.array()[:] = 7
    assert pinned.array().tolist() == [7] * 5
    with pytest.raises(DeviceError, match="'tables' lies on the GPU"):
        buffer.array()
    assert device.buffer("empty", (0, 3), F32, "host").array().shape == (0, 3)


def test_nothing_happens_before_it_is_waited_for_and_streams_keep_their_order(device: CudaDevice, kernel: Any) -> None:
    host, a, b, back, work = doubled(device, kernel)
    copies, steps = device.stream("copies"), device.stream("steps")
    there, done = device.event("there"), device.event("done")
    host.array()[:] = [1, 2, 3, 4]
    copies.copy(a, host)
    copies.record(there)
    steps.wait(there)
    steps.submit(work)
    steps.copy(back, b)
    assert done.done()  # never recorded
    steps.record(done)
    assert not done.done()
    assert not back.array().any()
    done.synchronize()
    assert done.done()
    assert back.array().tolist() == [2, 4, 6, 8]


def test_without_the_event_the_other_stream_reads_too_early(device: CudaDevice, kernel: Any) -> None:
    """The rehearsal is worth something: what a missing wait breaks is seen."""
    host, a, b, back, work = doubled(device, kernel)
    copies, steps = device.stream("copies"), device.stream("steps")
    host.array()[:] = 1
    copies.copy(a, host)
    steps.submit(work)
    steps.copy(back, b)
    steps.synchronize()
    assert back.array().tolist() == [0] * 4


def test_a_replay_is_one_launch_and_nothing_else(device: CudaDevice, kernel: Any, runtime: RehearsedCuda) -> None:
    _, a, b, back, work = doubled(device, kernel)
    again = kernel("add", lambda x, y: x + y + 1, [a, b], a)
    stream = device.stream("steps")
    since = len(runtime.calls)
    with stream.capture("trajectory") as graph:
        stream.submit(work)
        stream.submit(again)
        stream.copy(b, a)
    assert names(runtime, since) == [
        "cudaStreamBeginCapture",
        "cudaMemcpyAsync",
        "cudaStreamEndCapture",
        *("cudaGraphGetNodes", "cudaGraphInstantiate", "cudaGraphDestroy", "cudaGraphUpload"),
    ]
    (begin,) = runtime.named("cudaStreamBeginCapture")
    assert begin.arguments[1].name == "cudaStreamCaptureModeThreadLocal"
    trajectory, since = graph(), len(runtime.calls)
    for _ in range(5):
        stream.replay(trajectory)
    assert names(runtime, since) == ["cudaGraphLaunch"] * 5
    stream.copy(back, b)
    stream.synchronize()
    assert back.array().tolist() == [(3**5 - 1) / 2] * 4  # a' = 3 a + 1 from 0


def in_capture(device: CudaDevice, kernel: Any) -> list[tuple[str, Callable[[Any], object]]]:
    host, a, _, back, work = doubled(device, kernel)
    event = device.event("event")
    closed = Work("ort", work.reads, work.writes, work.run, capturable=False)
    return [
        ("copy of 'host' between host and device", lambda stream: stream.copy(a, host)),
        ("copy of 'a' between host and device", lambda stream: stream.copy(back, a)),
        ("synchronize", lambda stream: stream.synchronize()),
        ("record of the event 'event'", lambda stream: stream.record(event)),
        ("wait for the event 'event'", lambda stream: stream.wait(event)),
        ("'ort' cannot be captured", lambda stream: stream.submit(closed)),
        ("capture of 'inner'", lambda stream: stream.capture("inner").__enter__()),
        ("CaptureUnsupported", lambda _: device.event("outside").done()),
        ("CaptureInvalidated", lambda _: device.runtime.cudaMalloc(4)),  # by a library that does not look at errors
        ("recorded nothing", lambda _: None),
    ]


@pytest.mark.parametrize("number", range(10))
def test_a_capture_that_fails_leaves_the_stream_usable(
    device: CudaDevice, kernel: Any, runtime: RehearsedCuda, number: int
) -> None:
    said, spoil = in_capture(device, kernel)[number]
    host, a, b, back, work = doubled(device, kernel)
    stream = device.stream("steps")

    def capture() -> None:
        with stream.capture("bad"):
            if "recorded nothing" not in said:
                stream.submit(work)
            spoil(stream)

    with pytest.raises(DeviceError, match=said):
        capture()
    assert not runtime.graphs
    assert a.graphs == b.graphs == []
    host.array()[:] = 1
    stream.copy(a, host)
    with stream.capture("good") as graph:
        stream.submit(work)
    stream.replay(graph())
    stream.copy(back, b)
    stream.synchronize()
    assert back.array().tolist() == [2] * 4


def test_an_interrupted_capture_is_ended(device: CudaDevice, kernel: Any, runtime: RehearsedCuda) -> None:
    *_, work = doubled(device, kernel)
    stream, since = device.stream("steps"), len(runtime.calls)

    def capture() -> None:
        with stream.capture("bad") as graph:
            stream.submit(work)
            with pytest.raises(DeviceError, match="before its capture has ended"):
                graph()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        capture()
    assert names(runtime, since)[-3:] == ["cudaStreamEndCapture", "cudaGraphDestroy", "cudaGetLastError"]


def test_what_a_graph_holds_is_not_freed_before_it(device: CudaDevice, kernel: Any) -> None:
    _, a, b, _, work = doubled(device, kernel)
    stream = device.stream("steps")
    with stream.capture("steps") as graph:
        stream.submit(work)
    with pytest.raises(DeviceError, match="'a' is freed while the graph 'steps' holds its address"):
        a.free()
    graph().free()
    a.free()
    b.free()
    for use in (a.free, a.check_is_alive, graph().free, lambda: stream.replay(graph())):
        with pytest.raises(DeviceError, match="freed"):
            use()


def test_a_part_lies_in_its_whole(device: CudaDevice, kernel: Any) -> None:
    whole, host = device.buffer("whole", (4, 2), F32), device.buffer("host", (2,), F32, "host")
    row = whole.part("row 3", (2,), 3 * 8)
    assert (row.pointer, row.nbytes) == (whole.pointer + 24, 8)
    for shape, offset in (((3,), 24), ((1,), -4)):
        with pytest.raises(DeviceError, match="is no part of 'whole'"):
            whole.part("beyond", shape, offset)
    stream = device.stream("steps")
    with stream.capture("steps") as graph:
        stream.submit(kernel("fill", lambda x: 1 + np.arange(8).reshape(4, 2), [row], whole))
    stream.replay(graph())
    stream.copy(host, row)
    stream.synchronize()
    assert host.array().tolist() == [7, 8]
    row.free()  # does nothing
    row.check_is_alive()
    with pytest.raises(DeviceError, match="'whole' is freed while the graph"):
        whole.free()
    graph().free()
    whole.free()
    with pytest.raises(DeviceError, match="'row 3' is freed"):
        row.part("piece", (1,))


def test_copies_are_of_equal_size(device: CudaDevice) -> None:
    a, b = device.buffer("a", (2,), F32), device.buffer("b", (3,), F32)
    with pytest.raises(DeviceError, match=r"copy of 'b' \(12 bytes\) to 'a' \(8 bytes\)"):
        device.stream("copies").copy(a, b)


def fill(device: CudaDevice, kernel: Any) -> None:
    *_, work = doubled(device, kernel)
    stream = device.stream("steps")
    device.event("event")
    with stream.capture("kept"):
        stream.submit(work)
    device.buffer("freed by hand", (3,), F32).free()
    device.buffer("freed by hand, pinned", (3,), F32, "host").free()
    stream.submit(work)  # and not waited for


FREES = ("cudaFreeAsync", "cudaFreeHost", "cudaGraphExecDestroy", "cudaEventDestroy", "cudaStreamDestroy")


@pytest.mark.parametrize("broken", ["", *FREES, "cudaStreamSynchronize", "cudaMemPoolDestroy"])
def test_close_frees_everything_once_and_goes_on_after_a_failure(
    kernel: Any, runtime: RehearsedCuda, broken: str
) -> None:
    device = CudaDevice(runtime=runtime)
    fill(device, kernel)
    since = len(runtime.calls)
    if broken:
        runtime.fails[broken] = [1]
        with pytest.raises(DeviceError, match=f"{broken} failed for closing the device: cudaErrorInvalidValue"):
            device.close()
    else:
        device.close()
        assert runtime.left == 0
    device.close()
    freed = Counter((call.name, call.arguments[0]) for call in runtime.calls if call.name in FREES)
    assert set(freed.values()) == {1}
    found = names(runtime, since)
    order = [found.index(name) for name in ("cudaStreamSynchronize", "cudaGraphExecDestroy", "cudaFreeAsync")]
    order += [found.index(name) for name in ("cudaEventDestroy", "cudaStreamDestroy", "cudaMemPoolDestroy")]
    assert order == sorted(order)
    with pytest.raises(DeviceError, match="the device is closed"):
        device.stream("late")


def test_a_failed_open_holds_nothing(runtime: RehearsedCuda) -> None:
    runtime.fails["cudaStreamCreateWithFlags"] = [NO_MEMORY]
    with pytest.raises(DeviceMemoryError):
        CudaDevice(runtime=runtime)
    assert runtime.left == 0


def test_a_failed_allocation_says_how_much_and_holds_nothing(device: CudaDevice, runtime: RehearsedCuda) -> None:
    before = runtime.left
    with pytest.raises(DeviceMemoryError) as caught:
        device.buffer("noise", (2**20, 512), F32)
    assert caught.value.what == "2048.0 MiB for the buffer 'noise' cannot be had"
    assert caught.value.note == "1024.0 of 1024.0 MiB are free"
    assert "lower the batch" in str(caught.value.hint)
    runtime.fails["cudaMemsetAsync"] = [1]
    with pytest.raises(DeviceError, match="cudaMemsetAsync failed"):
        device.buffer("noise", (4,), F32)
    runtime.fails["cudaHostAlloc"] = [NO_MEMORY]
    with pytest.raises(DeviceMemoryError, match="pinned memory"):
        device.buffer("noise", (4,), F32, "host")
    device._pool.free_call(0)
    device.stream("settles the pool's stream").synchronize()
    runtime.drain(device._pool._stream)
    assert runtime.left == before + 1  # the stream


def test_a_crash_of_a_kernel_is_said_where_it_is_waited_for(device: CudaDevice, runtime: RehearsedCuda) -> None:
    stream, event = device.stream("steps"), device.event("done")
    runtime.enqueue(stream.handle, lambda: ILLEGAL_ADDRESS)
    stream.record(event)
    with pytest.raises(DeviceError) as caught:
        event.synchronize()
    assert caught.value.what == "cudaEventSynchronize failed for event 'done': cudaErrorIllegalAddress (700)"
    assert "start a new process" in str(caught.value.hint)
    runtime.fails["cudaEventQuery"] = [ILLEGAL_ADDRESS]
    with pytest.raises(DeviceError, match="cudaEventQuery failed for event 'done'"):
        event.done()
    runtime.sticky = 0


@pytest.mark.parametrize(("error", "said"), [(35, "cudaErrorInsufficientDriver"), (100, "cudaErrorNoDevice")])
def test_no_driver_and_no_gpu_name_the_extra_and_the_doctor(error: int, said: str) -> None:
    runtime = RehearsedCuda(gpus=0)
    runtime.count_error = error
    with pytest.raises(BackendError, match=said) as caught:
        CudaDevice(runtime=runtime)
    assert caught.value.hint == DOCTOR
    assert "msdm[cuda]" in DOCTOR
    assert "msdm-engine doctor" in DOCTOR
    assert names(runtime, 0)[0] == "cudaGetDeviceCount"  # the one call that neither raises nor hangs
    with pytest.raises(BackendError, match="there is no GPU 3"):
        CudaDevice(3, RehearsedCuda())


def test_without_cuda_python_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cuda.bindings.runtime", None)
    with pytest.raises(BackendError, match="cuda-python cannot be imported") as caught:
        CudaDevice()
    assert caught.value.hint == DOCTOR


def test_a_gpu_without_memory_pools_is_refused(runtime: RehearsedCuda) -> None:
    runtime._cudaDeviceGetAttribute = lambda *_: (0, 0)  # type: ignore[method-assign]
    with pytest.raises(DeviceError, match="no memory pools"):
        CudaDevice(runtime=runtime)


def test_identity_names_what_decides_the_bits(device: CudaDevice) -> None:
    assert device.identity == {"name": "Rehearsed GPU", "capability": "sm_89", "driver": "13.5"}
    assert device.memory() == (2**30, 2**30)


def test_the_real_runtime_takes_the_arguments_that_are_recorded(kernel: Any, runtime: RehearsedCuda) -> None:
    """Without a GPU every real call answers an error code; a wrong number or type of arguments raises."""
    real = pytest.importorskip("cuda.bindings.runtime", reason="cuda-python is not installed: pip install 'msdm[cuda]'")
    if int(real.cudaGetDeviceCount()[0]) == 0:
        pytest.skip("this machine has a GPU, and these are not its addresses")
    with CudaDevice(runtime=runtime) as device:
        fill(device, kernel)
        host, a, *_, work = doubled(device, kernel)
        stream, event = device.stream("steps"), device.event("event")
        stream.copy(a, host)
        stream.record(event)
        stream.wait(event)
        event.synchronize()
        with stream.capture("graph") as graph:
            stream.submit(work)
        stream.replay(graph())
        event.done()
    enums = {"Kind": real.cudaMemcpyKind, "CaptureMode": real.cudaStreamCaptureMode, "Attribute": real.cudaDeviceAttr}
    seen = {call.name: call for call in runtime.calls}
    assert len(seen) > 25
    for name, call in seen.items():
        arguments = [
            getattr(enums[type(value).__name__], value.name) if type(value).__name__ in enums else value
            for value in call.arguments
        ]
        if name == "cudaMemPoolCreate":
            arguments = [real.cudaMemPoolProps()]
        if name in ("cudaGetErrorName", "cudaGetErrorString"):
            continue
        error, *_ = getattr(real, name)(*arguments)
        assert int(error) in (0, 35), name  # 0: versions, and a last error of nothing
