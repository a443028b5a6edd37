"""The path of TensorRT for data-centre GPUs, on a stand-in: TensorRT for RTX under the other's name and version.

It parses and builds for real, and lacks what only TensorRT for RTX has. What a stand-in cannot show is that TensorRT
itself agrees. Polygraphy drives one TensorRT in a process, so this runs in a process of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

STAND_IN = """
from tensorrt_rtx import *
import tensorrt_rtx as _rtx

__version__ = "11.4.0.106"
del ComputeCapability
_flags = {name: flag for name, flag in _rtx.BuilderFlag.__members__.items() if name != "REQUIRE_USER_ALLOCATION"}
BuilderFlag = type("BuilderFlag", (), _flags | {"__members__": _flags})
"""

PROGRAM = """
import json, sys
from pathlib import Path
from msdm_engine.doctor.probe import Gpu, Probe
from msdm_engine.errors import BackendError
from msdm_export.plans import job
from msdm_export.plans.options import BuildOptions

folder, cache = Path(sys.argv[1]), Path(sys.argv[2])
request = job.BuildRequest(folder, "tensorrt", ("sm_90",), ("64:1",), options=BuildOptions(timing_cache=cache))
said = ""
job.probe_gpus = lambda: Probe((Gpu("RTX 4090", "sm_89", 24564),))
try:
    job.build(request)
except BackendError as error:
    said = str(error)
job.probe_gpus = lambda: Probe((Gpu("H100", "sm_90", 81559),))
cache.write_bytes(b"")
rows = job.build(request)
kept = all(row.kept for row in job.build(request))
rtx = ""
try:
    job.build(job.BuildRequest(folder, "tensorrt-rtx", ("sm_89",), ("64:1",)))
except BackendError as error:
    rtx = str(error)
print(json.dumps({"said": said, "rtx": rtx, "kept": kept, "plans": [vars(row.spec) for row in rows]}))
"""


@pytest.mark.usefixtures("rtx")
def test_tensorrt_builds_for_the_gpu_that_is_there(micro: Path, tmp_path: Path) -> None:
    (tmp_path / "tensorrt.py").write_text(STAND_IN)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM, str(micro), str(tmp_path / "cache")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert "cannot build for sm_90 here: this machine has sm_89" in report["said"]
    assert "POLYGRAPHY_USE_TENSORRT_RTX=1" in report["rtx"]
    assert [plan["graph"] for plan in report["plans"]] == ["text_encoder", "conditioner", "denoiser"]
    for plan in report["plans"]:
        assert (plan["backend"], plan["version"], plan["target"]) == ("tensorrt", "11.4.0.106", "sm_90")
        assert plan["options"]["capture"]["user_allocation_flag"] is False
        assert plan["build"]["timing_cache_sha256"]
    # A build adds to the cache, which makes no other plan of it.
    assert report["kept"]
