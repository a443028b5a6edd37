"""A set made by a local Ray, one of whose workers is killed midway."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from msdm_engine.cli import main
from msdm_engine.errors import BackendError, OutputError, RequestError
from msdm_engine.output.job import generate
from msdm_engine.requests.request import GroupRequest, Layout, SetRequest
from msdm_engine.scale import ray_job
from msdm_engine.scale.ray_job import RayJob, run_ray

REQUEST = SetRequest((GroupRequest(Layout("round"), count=24, height_px=64, width_px=64, steps=2),), seed=4)


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def writer_of(parts: Path) -> int | None:
    """The process that holds a shard open that it has begun and not finished."""
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            target = Path(os.readlink(link))
        except OSError:  # gone, or not ours
            continue
        if target.name == "set.json" and target.is_relative_to(parts) and any((target.parent / "masks").glob("*.png")):
            return int(link.parts[2])
    return None


@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("reference")
def test_a_worker_is_killed_and_the_set_is_the_same(tmp_path: Path) -> None:
    """Some 20 s of one core, nearly all of it Ray's own start."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'msdm[scale]'")
    if not Path("/proc/self/fd").exists():
        pytest.skip("the worker to kill is found in /proc")
    killed: list[int] = []
    bundle = Path(os.environ["MSDM_TEST_BUNDLE"]) if "MSDM_TEST_BUNDLE" in os.environ else None

    def kill() -> None:
        for _ in range(6000):
            worker = writer_of(tmp_path / "parts")
            if worker is not None:
                os.kill(worker, signal.SIGKILL)
                killed.append(worker)
                return
            time.sleep(0.01)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    job = RayJob(REQUEST, tmp_path / "parts", bundle=bundle, workers=1, shards=2, batch=2)
    assert run_ray(job, tmp_path / "out") == 24
    killer.join()
    assert len(killed) == 1 and not (tmp_path / "parts").exists()
    generate(REQUEST, tmp_path / "whole", bundle=bundle, threads=1, batch=2)
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


@pytest.mark.parametrize(
    ("values", "message"),
    [({"workers": 0}, "workers is 0"), ({"threads": 0}, "threads is 0"), ({"gpus": -1}, "gpus is -1")],
)
def test_what_a_job_refuses(values: dict[str, int], message: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=message):
        RayJob(REQUEST, tmp_path, **values)  # type: ignore[arg-type]


def test_what_is_refused_before_ray_starts(
    bundle_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_start(*arguments: object) -> None:
        raise AssertionError("Ray was started")

    monkeypatch.setattr(ray_job, "_ray", lambda: None)
    monkeypatch.setattr(ray_job, "_make_all", no_start)
    job = RayJob(REQUEST, tmp_path / "parts", bundle=bundle_folder, shards=13, batch=2)
    with pytest.raises(RequestError, match=r"13 shards of a set of 12 batch\(es\)"):
        run_ray(job, tmp_path / "out")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/notes.txt").write_text("mine")
    job = RayJob(REQUEST, tmp_path / "parts", bundle=bundle_folder)
    with pytest.raises(OutputError, match="exists and is not empty"):
        run_ray(job, tmp_path / "out")


def test_without_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(BackendError, match=r"Ray is not installed\n.*msdm\[scale\]"):
        run_ray(RayJob(REQUEST, tmp_path / "parts"), tmp_path / "out")
    request = tmp_path / "request.yaml"
    request.write_text("version: 1\ngroups:\n  - {count: 2, size: 64, morphology: {layout: round}}\n")
    done = CliRunner().invoke(main, ["ray", str(request), "--out", str(tmp_path / "out")])
    assert done.exit_code == 6 and "msdm[scale]" in done.stderr
