"""The log of a run: TensorBoard, ``log.jsonl`` and a progress bar."""

from __future__ import annotations

import json
import time
from pathlib import Path

from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm


class RunLog:
    """Writes what a run reports; of several processes, only the main one has it.

    Entries behind ``first_step`` are what a killed run wrote after its last checkpoint: they are dropped, so that
    each step stands in the log once.
    """

    def __init__(self, run: Path, first_step: int, steps: int) -> None:
        self._path = run / "log.jsonl"
        if self._path.exists():
            lines = self._path.read_text().splitlines(keepends=True)
            self._path.write_text("".join(line for line in lines if _step(line) <= first_step))
        self._writer = SummaryWriter(str(run / "tensorboard"), purge_step=first_step + 1)
        self._bar = tqdm(total=steps, initial=first_step, unit="step", mininterval=5)
        self._began = time.monotonic()

    def advance(self) -> None:
        """One step is done."""
        self._bar.update()

    def write(self, step: int, values: dict[str, float]) -> None:
        """Numbers of a step."""
        if "train/total" in values:
            self._bar.set_postfix(loss=f"{values['train/total']:.4f}")
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        seconds = round(time.monotonic() - self._began, 1)
        with self._path.open("a") as log:
            log.write(json.dumps({"step": step, "seconds": seconds, **values}) + "\n")

    def picture(self, step: int, picture: Tensor) -> None:
        """[3, H, W] uint8 sample grid."""
        self._writer.add_image("samples", picture, step)

    def close(self) -> None:
        """Flushes."""
        self._bar.close()
        self._writer.close()


def _step(line: str) -> float:
    """Step of a line; one that a crash cut short counts as never written."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError):
        return float("inf")
