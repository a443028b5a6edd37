"""Whether a setting fits the memory, said before anything is allocated."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from msdm_engine.backends import Backend, StatesActivation
from msdm_engine.devices.contract import Device
from msdm_engine.errors import DeviceMemoryError
from msdm_engine.pipeline.inventory import Inventory, Wanted
from msdm_engine.pipeline.setting import Setting

#: What a graph needs inside, where its backend does not say: at most so many times the bytes of its inputs and outputs.
#: Measured for the reference bundle on ONNX Runtime: see docs/runtime.md.
ACTIVATION_FACTOR = 16


class DoesNotFit(DeviceMemoryError):
    """Said before anything was allocated, by the estimate."""


Plan = Callable[[Setting], Inventory]


def needed_bytes(needs: Inventory, backend: Backend, device: Device) -> int:
    """Device memory of a setting: its buffers exactly, and what the graphs need inside.

    On a device whose memory is the host's, buffers in pinned memory count too.
    """
    buffers = needs.nbytes(None if device.unified else "device")
    return buffers + sum(_inside(graph, ends, backend) for graph, ends in needs.ends.items())


def _inside(graph: str, ends: Mapping[str, Wanted], backend: Backend) -> int:
    """Activation memory of one graph, as its backend states it, else by :data:`ACTIVATION_FACTOR`."""
    if isinstance(backend, StatesActivation):
        return backend.activation_bytes(graph, {name: wanted.shape for name, wanted in ends.items()})
    return ACTIVATION_FACTOR * sum(wanted.nbytes for wanted in ends.values())


def check_fits(setting: Setting, plan: Plan, backend: Backend, device: Device) -> Inventory:
    """What the setting needs, if the device has the memory.

    Raises:
        DoesNotFit: it has not; names the largest batch that fits.
    """
    free, _ = device.memory()

    def needed(batch: int) -> int:
        return needed_bytes(plan(replace(setting, batch=batch)), backend, device)

    wanted = needed(setting.batch)
    if wanted <= free:
        return plan(setting)
    low, high = 0, setting.batch  # `low` fits, `high` does not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if needed(middle) <= free else (low, middle)
    size = f"{setting.height_px} x {setting.width_px} px"
    raise DoesNotFit(
        f"batch {setting.batch} of {size} needs about {wanted / 2**20:.0f} MiB, {free / 2**20:.0f} MiB are free",
        note=f"the largest batch that fits is {low}" if low else "not even one such pair fits",
        hint=f"--batch {low}" if low else "ask for a smaller size",
    )
