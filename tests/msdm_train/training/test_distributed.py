from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from msdm_train.training.checkpoint import read_info, read_tensors

#: What `accelerate launch` or `torchrun` starts in each process.
WORKER = """
import sys
from pathlib import Path
import torch
from safetensors.torch import save_file
from msdm_train.training.config import FitConfig
from msdm_train.training.fit import open_trainer

torch.set_num_threads(1)
pack, out = map(Path, sys.argv[1:])
config = FitConfig(steps=4, batch=2, crop_px=16, warmup_steps=1, save_every=2, log_every=1, validate_every=3)
trainer = open_trainer(pack, out / "run", config, model="tiny")
rank = trainer.accelerator.process_index
crops = torch.as_tensor(trainer._sampler("train", 0)(0)["state"])
trainer.run_to_end()
weights = {f"weight.{n}": v.contiguous() for n, v in trainer.model.state_dict().items()}
save_file({**weights, "crops": crops}, out / f"rank{rank}.safetensors")
trainer.accelerator.end_training()
"""


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def two_processes(small_pack: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four steps in two processes that talk over gloo."""
    out = tmp_path_factory.mktemp("distributed")
    (out / "worker.py").write_text(WORKER)
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, str(out / "worker.py"), str(small_pack), str(out)],
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank), "CUDA_VISIBLE_DEVICES": ""},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        told = [process.communicate(timeout=300)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(told)
    return out


def test_gradients_are_averaged_so_that_weights_stay_equal(two_processes: Path) -> None:
    one, two = (read_tensors(two_processes / f"rank{rank}.safetensors") for rank in range(2))
    assert not torch.equal(one.pop("crops"), two.pop("crops"))  # each process has crops of its own
    assert [name for name in one if not torch.equal(one[name], two[name])] == []


def test_one_process_writes_a_checkpoint_with_the_names_of_the_model(two_processes: Path) -> None:
    one = read_tensors(two_processes / "rank0.safetensors")
    folder = two_processes / "run" / "checkpoint"
    training = read_tensors(folder / "training.safetensors")
    assert read_info(folder).training["run_step"] == 4
    weights = {name.removeprefix("weight."): value for name, value in one.items() if name.startswith("weight.")}
    assert set(read_tensors(folder / "model.safetensors")) == set(weights)
    assert all(torch.equal(training[f"model.{name}"], value) for name, value in weights.items())
    lines = [json.loads(line) for line in (two_processes / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "train/total" in line] == [1, 2, 3, 4]
