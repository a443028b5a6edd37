"""Batches that stay on the device, copied by another library on a stream of its own: the pictures of the host."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
from benchmarks.gpu_interop import address_of, handle_of, numpy_of

from msdm_engine import Engine, PairRequest
from msdm_engine.pipeline.handover import pictures_from_states

#: An odd number of pairs, so that the last batch is short; seven batches go round in two slots.
PAIRS, BATCH, SIZE_PX = 13, 2, 128


def on_device(engine: Engine, library: Any, stream: Any = None, *, size_px: int = SIZE_PX) -> dict[str, Any]:
    """Every batch is copied late, on the library's stream, and released to it at once.

    Args:
        library: ``torch``, ``cupy``, or NumPy where the engine's device is the host.
        stream: of the library; None: it has none.

    Raises:
        AssertionError: a picture is not the host's, to the bit.
    """
    sampling = engine.bundle.manifest.sampling.changed(batch=BATCH)
    wanted = [PairRequest(index, 1, size_px, size_px) for index in range(PAIRS)]
    copies, addresses = list[Any](), set[int]()
    for batch in engine.sample_on_device(wanted, sampling):
        with _current(library, stream):
            taken = library.from_dlpack(batch.image)
            addresses.add(_address(taken))
            copies.append(taken.copy() if hasattr(taken, "copy") else taken.clone())
        batch.release(stream if stream is None or hasattr(stream, "__cuda_stream__") else handle_of(stream))
    if stream is not None:
        stream.synchronize()
    found = [picture for copy in copies for picture in pictures_from_states(_numpy(copy))]
    expected = [pair.image for pair in engine.sample(wanted, sampling, critic=False)]
    assert len(found) == PAIRS and all(map(np.array_equal, found, expected)), "a picture on the device is another one"
    assert len(addresses) == 2, f"two slots lie at {len(addresses)} addresses: something was copied"
    return {"pairs": PAIRS, "addresses": len(addresses), "equal_to_the_bit": True}


def _current(library: Any, stream: Any) -> AbstractContextManager[Any]:
    if stream is None:
        return nullcontext()
    chosen: AbstractContextManager[Any] = library.cuda.stream(stream) if hasattr(library.cuda, "stream") else stream
    return chosen


def _address(array: Any) -> int:
    return int(array.ctypes.data) if isinstance(array, np.ndarray) else address_of(array)


def _numpy(array: Any) -> np.ndarray:
    return array if isinstance(array, np.ndarray) else numpy_of(array)
