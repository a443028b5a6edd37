"""Arrays and streams of others by protocol, on a rehearsed GPU and, for the host, with the real libraries."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from msdm_engine.devices import dlpack
from msdm_engine.devices.cuda import CudaDevice
from msdm_engine.devices.device_array import DeviceArray
from msdm_engine.devices.host import HostDevice
from msdm_engine.devices.interop import borrow, borrow_on_host, borrow_stream, handle_of
from msdm_engine.devices.lease import Lease
from msdm_engine.errors import DeviceError
from msdm_engine.rehearsal.cuda import RehearsedCuda

F32 = np.dtype(np.float32)
SHAPE = (2, 3)


class Stream:
    """A stream of cuda.core, CuPy or PyTorch."""

    def __init__(self, handle: int, version: int = 0) -> None:
        self.handle, self.version = handle, version

    def __cuda_stream__(self) -> tuple[int, int]:
        return self.version, self.handle


class Interface:
    """An array of PyCUDA or Numba."""

    def __init__(self, pointer: int, **changes: Any) -> None:
        self.__cuda_array_interface__ = {
            "version": 3, "shape": SHAPE, "typestr": "<f4", "data": (pointer, False), "strides": None, "stream": None
        } | changes  # fmt: skip


class Tensor:
    """An array of CuPy or PyTorch; ``old`` ones are from before version 1. Says on which stream it was asked for."""

    def __init__(self, pointer: int, *, old: bool = False, shape: Any = SHAPE, dtype: Any = F32, gpu: int = 0) -> None:
        self.pointer, self.old, self.shape, self.dtype, self.gpu = pointer, old, shape, dtype, gpu
        self.asked: list[Any] = []

    def __dlpack_device__(self) -> tuple[int, int]:
        return dlpack.CUDA, self.gpu

    def __dlpack__(self, *, stream: int, **more: Any) -> Any:
        if self.old and more:
            raise TypeError("unexpected keyword argument 'max_version'")
        self.asked.append((stream, more))
        where = self.__dlpack_device__()
        return dlpack.capsule_of(self.pointer, self.shape, self.dtype, where, self, versioned=not self.old)


@pytest.fixture
def foreign(runtime: RehearsedCuda) -> int:
    """Memory of another library, with the numbers 0 to 5."""
    pointer = runtime.cudaMalloc(24)[1]
    runtime.memory[pointer][:] = list(np.arange(6, dtype=np.float32).tobytes())
    return int(pointer)


def test_streams_are_taken_by_protocol_or_handle(device: CudaDevice, runtime: RehearsedCuda) -> None:
    ours = device.stream("ours")
    assert ours.__cuda_stream__() == (0, ours.handle)  # and ours by others
    theirs = Stream(runtime.cudaStreamCreateWithFlags(1)[1])
    borrowed = borrow_stream(device, theirs)
    assert borrowed.handle == theirs.handle
    assert borrow_stream(device, theirs.handle).handle == theirs.handle
    assert handle_of(0)[0] == handle_of(Stream(0))[0] == 1  # the legacy default stream
    before = len(runtime.named("cudaStreamDestroy"))
    device.close()
    assert theirs.handle not in [call.arguments[0] for call in runtime.named("cudaStreamDestroy")[before:]]
    for wrong, said in ((Stream(5, version=1), "version 1 of __cuda_stream__"), ("five", "a str is no stream")):
        with pytest.raises(DeviceError, match=said):
            handle_of(wrong)
    runtime.cudaStreamDestroy(theirs.handle)


@pytest.mark.parametrize("make", [Interface, Tensor, lambda pointer: Tensor(pointer, old=True)])
def test_an_array_is_used_where_it_lies(
    make: Callable[[int], Any], device: CudaDevice, foreign: int, kernel: Any
) -> None:
    ours, array = device.stream("ours"), make(foreign)
    buffer = borrow(device, "maps", array, SHAPE, F32, ours, writable=True)
    assert buffer.pointer == foreign
    host = device.buffer("host", SHAPE, F32, "host")
    ours.submit(kernel("double", lambda x: 2 * x, [buffer], buffer))
    ours.copy(host, buffer)
    ours.synchronize()
    assert host.array().tolist() == [[0, 2, 4], [6, 8, 10]]
    if isinstance(array, Tensor):
        assert array.asked == [(ours.handle, {} if array.old else {"max_version": (1, 0)})]
    buffer.free()
    with pytest.raises(DeviceError, match="'maps' is freed"):
        buffer.free()


@pytest.mark.parametrize("make", [Interface, Tensor])
def test_an_array_is_kept_as_long_as_its_buffer(make: Any, device: CudaDevice, foreign: int) -> None:
    array, before = make(foreign), len(dlpack._exported)
    gone: list[str] = []
    weakref.finalize(array, gone.append, "gone")
    buffer = borrow(device, "maps", array, SHAPE, F32, device.stream("ours"))
    del array
    gc.collect()
    assert not gone
    buffer.free()
    gc.collect()
    assert gone == ["gone"]
    assert len(dlpack._exported) == before  # the deleter was called


def test_the_stream_of_an_array_interface_is_waited_for(
    device: CudaDevice, runtime: RehearsedCuda, foreign: int
) -> None:
    theirs, ours = runtime.cudaStreamCreateWithFlags(1)[1], device.stream("ours")
    late = runtime.memory[foreign]
    runtime.enqueue(theirs, lambda: late.__setitem__(slice(None), list(np.full(6, 9, np.float32).tobytes())) or 0)
    buffer = borrow(device, "maps", Interface(foreign, stream=theirs), SHAPE, F32, ours)
    host = device.buffer("host", SHAPE, F32, "host")
    ours.copy(host, buffer)
    ours.synchronize()
    assert (host.array() == 9).all()
    runtime.cudaStreamDestroy(theirs)


BAD: list[tuple[Callable[[int], Any], str]] = [
    (lambda p: Interface(p, typestr="<f8"), "'maps' is float64"),
    (lambda p: Interface(p, shape=(3, 2)), r"has the shape \[3, 2\]"),
    (lambda p: Interface(p, strides=(4, 8)), r"has the strides \[1, 2\] \(elements\)"),
    (lambda p: Interface(p, data=(p, True)), "'maps' is read-only"),
    (lambda p: Interface(p, mask=Interface(p)), "masked array"),
    (lambda p: Interface(p, stream=0), "stream 0 of a __cuda_array_interface__"),
    (lambda p: Interface(16), "'maps' lies on no GPU"),
    (lambda p: Tensor(p, dtype=np.dtype(np.int32)), "'maps' is int32"),
    (lambda p: Tensor(p, shape=(6,)), r"has the shape \[6\]"),
    (lambda p: Tensor(p, gpu=1), r"'maps' lies on a GPU \(1\)"),
    (lambda p: np.zeros(SHAPE, F32), r"'maps' lies on the host \(0\)"),
    (lambda p: [1.0], "'maps' is a list"),
]


@pytest.mark.parametrize("number", range(len(BAD)))
def test_an_array_that_does_not_fit_is_refused(number: int, device: CudaDevice, foreign: int) -> None:
    make, said = BAD[number]
    with pytest.raises(DeviceError, match=said):
        borrow(device, "maps", make(foreign), SHAPE, F32, device.stream("ours"), writable=True)
    gc.collect()


def test_what_the_producer_refuses_is_said(device: CudaDevice, foreign: int) -> None:
    tensor = Tensor(foreign)

    def refuse(**_: Any) -> Any:
        raise BufferError("it requires grad")

    tensor.__dlpack__ = refuse  # type: ignore[method-assign]
    with pytest.raises(DeviceError, match="'maps' cannot be taken: it requires grad"):
        borrow(device, "maps", tensor, SHAPE, F32, device.stream("ours"))


def test_a_capsule_is_taken_once(device: CudaDevice, foreign: int) -> None:
    before = len(dlpack._exported)
    capsule = Tensor(foreign).__dlpack__(stream=1)
    taken = dlpack.Taken(capsule)
    with pytest.raises(DeviceError, match="taken before"):
        dlpack.Taken(capsule)
    del taken, capsule
    unused = Tensor(foreign, old=True).__dlpack__(stream=1)
    assert len(dlpack._exported) == before + 1
    del unused  # nobody took it: its destructor deletes
    gc.collect()
    assert len(dlpack._exported) == before


@pytest.fixture
def result(device: CudaDevice, kernel: Any) -> tuple[DeviceArray, Lease, Any]:
    stream, ready = device.stream("steps"), device.event("ready")
    lease, out = Lease("batch 4", device, stream, ready, device.event("freed")), device.buffer("image", SHAPE, F32)
    stream.submit(kernel("fill", lambda: 7, [], out))
    stream.record(ready)
    return DeviceArray("image", out, lease), lease, stream


def test_a_result_is_taken_on_a_stream_that_waits_for_it(
    device: CudaDevice, runtime: RehearsedCuda, result: tuple[DeviceArray, Lease, Any]
) -> None:
    array, _, stream = result
    assert array.__cuda_array_interface__["stream"] == stream.handle  # it is not written yet
    theirs = device.stream("theirs")
    host = device.buffer("host", SHAPE, F32, "host")
    since = len(runtime.calls)
    capsule = dlpack.Taken(array.__dlpack__(stream=theirs.handle, max_version=(1, 0)))
    assert [call.name for call in runtime.calls[since:]] == ["cudaSetDevice", "cudaStreamWaitEvent"]  # no host waits
    assert capsule.tensor == dlpack.Described(array._buffer.pointer, (dlpack.CUDA, 0), F32, SHAPE, (3, 1), False)
    theirs.copy(host, device.borrow_buffer("theirs", SHAPE, F32, capsule.tensor.pointer, capsule))
    theirs.synchronize()
    assert (host.array() == 7).all()
    assert array.__cuda_array_interface__ == {
        "version": 3, "shape": SHAPE, "typestr": "<f4", "data": (capsule.tensor.pointer, False), "strides": None,
        "stream": None,
    }  # fmt: skip
    assert (array.numpy() == 7).all()
    for stream_argument, waits in ((None, 1), (1, 1), (2, 1), (-1, 0)):
        before = len(runtime.named("cudaStreamWaitEvent"))
        dlpack.Taken(array.__dlpack__(stream=stream_argument))
        assert len(runtime.named("cudaStreamWaitEvent")) - before == waits
    with pytest.raises(DeviceError, match="stream 0"):
        array.__dlpack__(stream=0)
    with pytest.raises(DeviceError, match="a copy of 'image' is asked for"):
        array.__dlpack__(copy=True)
    with pytest.raises(DeviceError, match=r"'image' is asked for on \(1, 0\)"):
        array.__dlpack__(dl_device=(1, 0))


def test_a_result_is_refused_after_its_memory_was_taken_back(
    device: CudaDevice, result: tuple[DeviceArray, Lease, Any]
) -> None:
    array, lease, _ = result
    assert "holds batch 4" in repr(array)
    lease.end("batch 6 is written there")
    uses: list[Callable[[], object]] = [array.__dlpack__, array.numpy, lambda: array.__cuda_array_interface__]
    for use in uses:
        with pytest.raises(DeviceError, match="'image' of batch 4 is gone: batch 6 is written there") as caught:
            use()
        assert "clone()" in str(caught.value.hint)
    assert "batch 6" in repr(array)


def test_a_released_result_is_not_overwritten_before_its_reader_is_done(
    device: CudaDevice, kernel: Any, result: tuple[DeviceArray, Lease, Any]
) -> None:
    array, lease, stream = result
    theirs, back = device.stream("theirs"), device.buffer("back", SHAPE, F32, "host")
    dlpack.Taken(array.__dlpack__(stream=theirs.handle))
    theirs.copy(back, array._buffer)
    lease.release(theirs)
    lease.release()  # the first word counts
    lease.taken_back_by(stream)
    stream.submit(kernel("fill", lambda: 8, [], array._buffer))
    stream.synchronize()  # the writer first: it has to wait for the reader
    theirs.synchronize()
    assert (back.array() == 7).all()


def on_host(device: HostDevice) -> DeviceArray:
    stream, ready, out = device.stream("steps"), device.event("ready"), device.buffer("image", SHAPE, F32)
    stream.synchronize()
    out.array()[:] = np.arange(6).reshape(SHAPE)
    stream.record(ready)
    return DeviceArray("image", out, Lease("batch 0", device, stream, ready, device.event("freed")))


def test_numpy_and_torch_take_a_result_on_the_host_without_a_copy() -> None:
    before = len(dlpack._exported)
    with HostDevice() as device:
        array = on_host(device)
        assert not hasattr(array, "__cuda_array_interface__")
        taken = np.from_dlpack(array)
        assert taken.tolist() == [[0, 1, 2], [3, 4, 5]]
        array._buffer.array()[0, 0] = 9
        assert taken[0, 0] == 9
        copied = array.numpy()
        array._buffer.array()[0, 0] = 3
        assert copied[0, 0] == 9
        del taken
        gc.collect()
        assert len(dlpack._exported) == before
        torch = pytest.importorskip("torch", reason="torch is not installed")
        tensor = torch.from_dlpack(array)
        assert tensor.data_ptr() == array._buffer.pointer
        assert tensor.tolist() == [[3, 1, 2], [3, 4, 5]]
        tensor[1, 1] = 8
        assert array._buffer.array()[1, 1] == 8
        del tensor
        gc.collect()
        assert len(dlpack._exported) == before
        array._lease.release(object())  # on the host other libraries have no streams to wait for


def test_arrays_on_the_host_are_taken_without_a_copy() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    tensor = torch.arange(6, dtype=torch.float32).reshape(SHAPE)
    found = borrow_on_host("maps", tensor, SHAPE, F32, writable=True)
    found[0, 0] = 5
    assert float(tensor[0, 0]) == 5
    fixed = np.zeros(SHAPE, F32)
    fixed.flags.writeable = False
    assert borrow_on_host("maps", np.zeros((1, 3), F32)[:, ::1], (1, 3), F32).shape == (1, 3)
    for array, said in (
        (tensor.double(), "is float64"),
        (tensor.t(), r"has the shape \[3, 2\]"),
        (torch.zeros(3, 2).t(), r"has the strides \[1, 2\]"),
        (torch.zeros(SHAPE, requires_grad=True), "cannot be taken"),
        (fixed, "read-only"),
        (Tensor(0), "lies on a GPU"),
        ([1.0], "'maps' is a list"),
    ):
        with pytest.raises(DeviceError, match=said):
            borrow_on_host("maps", array, SHAPE, F32, writable=True)
