"""A GPU of host memory, and kernels that a test writes in NumPy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from msdm_engine.devices.contract import Buffer, Stream, Work
from msdm_engine.devices.cuda import CudaDevice
from msdm_engine.devices.cuda_memory import view_of_host
from msdm_engine.rehearsal.cuda import ILLEGAL_ADDRESS, OK, RehearsedCuda


@pytest.fixture
def runtime() -> RehearsedCuda:
    return RehearsedCuda()


@pytest.fixture
def device(runtime: RehearsedCuda) -> Iterator[CudaDevice]:
    with CudaDevice(runtime=runtime) as device:
        yield device


Kernel = Callable[..., Work]


@pytest.fixture
def kernel(runtime: RehearsedCuda) -> Kernel:
    """Work that computes its one output from its inputs with a NumPy function, when its stream gets there."""

    def make(name: str, function: Callable[..., Any], reads: list[Buffer], out: Buffer) -> Work:
        def compute() -> int:
            if any(runtime.check(buffer.pointer, buffer.nbytes) for buffer in (*reads, out)):
                return ILLEGAL_ADDRESS
            view(out)[...] = function(*(view(buffer) for buffer in reads))
            return OK

        def run(stream: Stream) -> None:
            assert runtime.enqueue(stream.handle, compute) == OK

        return Work(name, tuple(reads), (out,), run)

    return make


def view(buffer: Buffer) -> np.ndarray:
    """What is in a buffer of the rehearsed GPU, which is host memory."""
    return view_of_host(buffer.pointer, buffer.shape, buffer.dtype)


@pytest.fixture(name="view")
def view_fixture() -> Callable[[Buffer], np.ndarray]:
    return view
