"""Options of a build, checked once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msdm_engine.errors import RequestError

MAX_LEVEL = 5
MAX_WORKSPACE_MIB = 2**20


@dataclass(frozen=True)
class BuildOptions:
    """What decides a plan beside graph, target, precision and profile.

    Args:
        level: TensorRT's builder optimisation level, 0 to 5; None: its own default.
        workspace_mib: largest scratch memory of a layer; None: TensorRT's own limit.
        strip: leave the weights out, to be refitted when the plan is loaded: a new checkpoint needs no new build.
        dynamic: each profile is one plan over a range of shapes.
        timing_cache: tactics measured by earlier builds (TensorRT for data-centre GPUs; TensorRT for RTX has none).
    """

    level: int | None = None
    workspace_mib: int | None = None
    strip: bool = False
    dynamic: bool = False
    timing_cache: Path | None = None

    def __post_init__(self) -> None:
        if self.level is not None and not 0 <= self.level <= MAX_LEVEL:
            raise RequestError(f"builder level {self.level}", note=f"0 (fastest build) to {MAX_LEVEL} (fastest plan)")
        if self.workspace_mib is not None and not 1 <= self.workspace_mib <= MAX_WORKSPACE_MIB:
            raise RequestError(f"workspace of {self.workspace_mib} MiB", note=f"1 to {MAX_WORKSPACE_MIB}")

    def recorded(self, *, user_allocation: bool) -> dict[str, Any]:
        """For the manifest: what was asked for, and what capturing the plan in a CUDA graph needs.

        The timing cache is not among it: it saves measuring, each build adds to it, and a plan made with an older one
        is as good. Its hash is kept with what the build measured.

        Args:
            user_allocation: the plan was built to never allocate by itself (a flag of TensorRT for RTX).
        """
        return {
            "level": self.level,
            "workspace_mib": self.workspace_mib,
            "stripped": self.strip,
            "dynamic": self.dynamic,
            # One stream: what is captured has no fork. User-managed activation memory at a fixed address. Kernels of
            # a static shape are specialised when the plan is loaded, not in the background while it runs.
            "capture": {"aux_streams": 0, "allocation": "user", "user_allocation_flag": user_allocation}
            | {"specialisation": "none" if self.dynamic else "eager"},
        }
