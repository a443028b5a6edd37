"""Every buffer of a setting by name, with its shape, type and place: what is allocated, and what is counted before.

``start[0]`` belongs to slot 0: it is there twice, so that the next batch can fill the other one meanwhile. What two
batches under way never need at once is there once; that nothing else could be, the simulated device proves.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from msdm_engine.bundle.graph_shapes import Shape, dimensions_of, shapes_of
from msdm_engine.bundle.manifest import TensorSpec
from msdm_engine.contract import (
    CONDITIONER,
    CRITIC,
    CRITIC_INPUTS,
    CRITIC_OUTPUTS,
    DENOISER,
    DENOISER_INPUTS,
    DENOISER_OUTPUTS,
    IMAGE_CHANNELS,
    MAP_CHANNELS,
)
from msdm_engine.devices.contract import Place
from msdm_engine.errors import BundleError
from msdm_engine.pipeline.bound import Specs
from msdm_engine.pipeline.padding import Padding
from msdm_engine.pipeline.setting import Segment, Setting, segments

SLOTS = (0, 1)
#: Of tensors that are handed from graph to graph.
DTYPES = ("float32", "float16", "int64")
#: Rows of noise that the host can be ahead of their upload.
PINNED_ROWS = 4


@dataclass(frozen=True)
class Wanted:
    """A buffer that a setting needs."""

    shape: Shape
    dtype: np.dtype
    place: Place = "device"

    @property
    def nbytes(self) -> int:
        """Its size."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class Noise:
    """Where noise lies on the device: sets of rows, one set for each segment that is under way or next.

    Args:
        rows: rows of each set.
        wraps: whether a set is used again before the host has seen the end of the batch that used it last.
    """

    rows: tuple[int, ...]
    wraps: bool

    @property
    def sets(self) -> int:
        """How many."""
        return len(self.rows)


@dataclass(frozen=True)
class Inventory:
    """What a setting needs on a device.

    Args:
        segments: of its trajectory.
        context: what the conditioner hands to the denoiser, [G, B, ...].
        ends: inputs and outputs of each graph that a batch runs.
    """

    wanted: dict[str, Wanted]
    segments: tuple[Segment, ...]
    noise: Noise
    context: dict[str, Wanted]
    ends: dict[str, dict[str, Wanted]]

    @property
    def ahead(self) -> int:
        """Segments whose noise the host can make without waiting for steps of the same batch."""
        return min(self.noise.sets or len(self.segments), len(self.segments))

    def nbytes(self, place: Place | None = None) -> int:
        """Bytes of all buffers, or of those in one place."""
        return sum(wanted.nbytes for wanted in self.wanted.values() if place in (None, wanted.place))


def inventory(setting: Setting, specs: Specs, stride: int, critic_stride: int, *, longest: int, sets: int) -> Inventory:
    """The buffers of a setting.

    Args:
        specs: tensors of the graphs.
        stride, critic_stride: of the generator and of the critic in px.
        longest: rows of a segment at most.
        sets: sets of noise at most.
    """
    batch, own = setting.batch, len(setting.own_branches)
    inputs = {tensor.name: tensor for tensor in specs[DENOISER].inputs}
    height, width = Padding.of(setting.height_px, setting.width_px, stride).shape
    channels = inputs["state"].shape[1]
    assert isinstance(channels, int)  # of the contract
    state = Wanted((batch, channels, height, width), np.dtype(np.float32))
    weights = Wanted((len(setting.branches), batch), np.dtype(np.float32))
    known = {"state": state.shape, "guidance": weights.shape}
    sizes = dimensions_of(DENOISER, [inputs[name] for name in known], known)
    shapes = shapes_of(DENOISER, inputs.values(), sizes)
    context = {
        tensor.name: Wanted(shapes[tensor.name], _dtype(CONDITIONER, tensor)) for tensor in specs[CONDITIONER].outputs
    }
    conditions = _conditions(specs, own * batch, (height, width))
    cut = segments(setting, longest)
    noise = _noise(cut, sets)
    picture = _picture(setting, specs, critic_stride) if setting.critic else {}
    wanted = dict(
        [
            *(
                (f"row[{row}]", Wanted((len(setting.rows[0]),), np.dtype(np.float32)))
                for row in range(len(setting.rows))
            ),
            ("weights", weights),
            ("alone", Wanted((1, batch), weights.dtype)),
            ("zeros", state),
            *((f"x[{i}]", state) for i in (0, 1)),
            *((f"d[{i}]", state) for i in (0, 1)),
            *((f"noise[{r}][{j}]", state) for r in range(noise.sets) for j in range(noise.rows[r])),
            *((f"pinned[{p}]", _on_host(state)) for p in range(min(PINNED_ROWS, sum(noise.rows)))),
        ]
    )
    if setting.kept:
        wanted |= {f"no {name}": value for name, value in _conditions(specs, batch, (height, width)).items()}
        wanted |= {f"kept {name}": Wanted(value.shape[1:], value.dtype) for name, value in context.items()}
    for slot in SLOTS:
        wanted |= {f"{name}[{slot}]": value for name, value in {**context, "final": state}.items()}
        for name, value in {"start": state, **conditions}.items():
            wanted |= {f"{name}[{slot}]": value, f"{name}[{slot}] host": _on_host(value)}
    # The host reads the last state of a batch, and what the critic saw, before it asks for those of the next.
    wanted |= {f"{name} host": _on_host(value) for name, value in {"final": state, **picture}.items()}
    wanted |= picture
    row = wanted["row[0]"]
    step_in = dict(zip(DENOISER_INPUTS, (state, state, state, row, weights), strict=True))
    ends = {
        CONDITIONER: {**conditions, **context},
        DENOISER: {**step_in, **dict.fromkeys(DENOISER_OUTPUTS, state), **context},
        **({CRITIC: picture} if picture else {}),
    }
    return Inventory(wanted, cut, noise, context, ends)


def _conditions(specs: Specs, samples: int, shape: tuple[int, int]) -> dict[str, Wanted]:
    tensors = specs[CONDITIONER].inputs
    maps = next(tensor for tensor in tensors if tensor.name == "maps")
    sizes = dimensions_of(CONDITIONER, [maps], {"maps": (samples, int(maps.shape[1]), *shape)})
    shapes = shapes_of(CONDITIONER, tensors, sizes)
    return {tensor.name: Wanted(shapes[tensor.name], _dtype(CONDITIONER, tensor)) for tensor in tensors}


def _dtype(graph: str, tensor: TensorSpec) -> np.dtype:
    if tensor.dtype not in DTYPES:
        raise BundleError(
            f"'{tensor.name}' of the graph '{graph}' is of the type {tensor.dtype}", note=f"legal: {', '.join(DTYPES)}"
        )
    return np.dtype(tensor.dtype)


def _picture(setting: Setting, specs: Specs, stride: int) -> dict[str, Wanted]:
    """Input and output of the critic."""
    size = Padding.of(setting.height_px, setting.width_px, stride).shape
    picture, maps = ((setting.batch, len(channels), *size) for channels in (IMAGE_CHANNELS, MAP_CHANNELS))
    dimensions_of(CRITIC, specs[CRITIC].inputs, {CRITIC_INPUTS[0]: picture})  # it takes this size
    return {
        name: Wanted(shape, np.dtype(np.float32))
        for name, shape in ((CRITIC_INPUTS[0], picture), (CRITIC_OUTPUTS[0], maps))
    }


def _noise(cut: tuple[Segment, ...], most: int) -> Noise:
    uses = [len(segment.noisy) for _ in SLOTS for segment in cut if segment.noisy]
    sets = min(most, len(uses))
    return Noise(tuple(max(uses[first::sets]) for first in range(sets)), wraps=sets < len(uses))


def _on_host(wanted: Wanted) -> Wanted:
    return Wanted(wanted.shape, wanted.dtype, "host")
