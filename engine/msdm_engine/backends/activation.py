"""Memory for the activations of plans: ours, at fixed addresses, shared by what never runs at the same time.

A plan needs its activation memory while it runs and leaves nothing in it. So all pieces of work of one stage share one
block, whatever their graphs and shapes are: a pipeline submits a stage to one stream, whose order keeps them apart, and
a piece of work that another stream is given is an error. Stages overlap, so each has a block of its own:

- ``conditions``: text encoder and conditioner, for the next batch;
- ``steps``: the denoiser in all its shapes and segments, for this batch;
- ``judgement``: the critic, for the batch before;
- ``run``: the plain ``Backend.run`` of any graph, which waits for its end.

A block never moves, since captured graphs hold its address. A shape that needs more gets a larger block, and the older
one stays for the work that was bound to it: bind the largest shape first.
"""

from __future__ import annotations

import numpy as np

from msdm_engine.contract import CONDITIONER, CRITIC, DENOISER, TEXT_ENCODER
from msdm_engine.devices.contract import Buffer, Stream
from msdm_engine.devices.cuda import CudaDevice
from msdm_engine.errors import DeviceError

STAGES = {TEXT_ENCODER: "conditions", CONDITIONER: "conditions", DENOISER: "steps", CRITIC: "judgement"}
RUN = "run"
#: TensorRT asks for addresses that are multiples of it; pool memory has them.
ALIGNMENT_BYTES = 256


class StageMemory:
    """The blocks of one stage, and the one stream that its work is submitted to."""

    def __init__(self, device: CudaDevice, stage: str) -> None:
        self.stage, self._device = stage, device
        self.blocks: list[Buffer] = []
        self._stream: Stream | None = None

    def block(self, nbytes: int) -> Buffer:
        """The newest block where it is large enough, else a new one; zero bytes get an address too."""
        if not self.blocks or self.blocks[-1].nbytes < nbytes:
            size = max(-(-nbytes // ALIGNMENT_BYTES), 1) * ALIGNMENT_BYTES
            name = f"activations of {self.stage}"
            self.blocks.append(self._device.buffer(name, (size,), np.dtype(np.uint8)))
        return self.blocks[-1]

    def enter(self, stream: Stream) -> None:
        """The stage's stream is that of its first work; any other is an error, as the memory would be written twice."""
        if self._stream is None:
            self._stream = stream
        if self._stream.handle != stream.handle:
            raise DeviceError(
                f"the stage '{self.stage}' is submitted to the stream '{stream.name}'",
                note=f"it runs on '{self._stream.name}', and its graphs share memory",
                hint="submit a stage to one stream",
            )

    def close(self) -> None:
        """Frees the blocks, where the device has not done so; graphs that hold them are freed before (DeviceError)."""
        if not self._device.closed:
            for block in self.blocks:
                block.free()
        self.blocks.clear()
