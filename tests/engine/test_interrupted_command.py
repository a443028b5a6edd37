"""The command with a real bundle, in a process of its own: Ctrl-C or a kill, and a resume to the same bytes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from msdm_engine import Bundle, Engine, generate, verify_set
from msdm_engine.output.records import read_records
from msdm_engine.requests.compose import compose
from msdm_engine.requests.request import GroupRequest, Layout, SetRequest

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")

FLAGS = ["--layout", "columnar", "--count", "7", "--size", "64", "--steps", "2", "--threads", "1", "--batch", "2"]
REQUEST = SetRequest((GroupRequest(Layout("columnar"), count=7, height_px=64, width_px=64, steps=2),))


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def whole(reference: Bundle, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("whole") / "set"
    assert generate(REQUEST, out, bundle=reference.folder, threads=1, batch=2) == 7
    assert verify_set(out).problems == ()
    return tree(out)


def started(reference: Bundle, out: Path, *more: str) -> subprocess.Popen[str]:
    code = "from msdm_engine.cli import main; main()"
    command = [sys.executable, "-c", code, "sample", *FLAGS, "--bundle", str(reference.folder), "--out", str(out)]
    return subprocess.Popen([*command, *more], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_pairs(out: Path, pairs: int, process: subprocess.Popen[str]) -> None:
    while process.poll() is None and sum(1 for _ in read_records(out)) < pairs:
        time.sleep(0.001)


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_stopped_midway_leaves_whole_pairs_and_resumes_to_the_same_bytes(
    sent: signal.Signals, code: int, reference: Bundle, whole: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "set"
    process = started(reference, out, "--log-json")
    wait_for_pairs(out, 1, process)
    process.send_signal(sent)
    _, errors = process.communicate(timeout=60)
    found = verify_set(out)
    if process.returncode == 0:  # it was faster than the signal
        assert found.problems == ()
        return
    assert process.returncode == code
    assert 1 <= found.whole < 7
    assert "as it was" not in str(found.problems), "a listed pair is not whole"
    if sent == signal.SIGINT:
        assert json.loads(errors.splitlines()[-1])["event"] == "interrupted"
        assert not list(out.rglob(".*"))
    resumed = started(reference, out, "--resume", "--quiet")
    assert resumed.communicate(timeout=60) == ("", "") and resumed.returncode == 0
    assert tree(out) == whole


def test_a_pair_does_not_depend_on_its_neighbours_in_the_batch(
    reference: Bundle, whole: dict[str, bytes], tmp_path: Path
) -> None:
    """What makes a resumed set equal: batches are cut elsewhere, and of one shape."""
    out = tmp_path / "set"
    for name, data in whole.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes(data)
    for lost in (0, 3, 4):
        (out / "images" / f"{lost:06d}.png").unlink()
    assert generate(REQUEST, out, bundle=reference.folder, threads=1, batch=2, resume=True) == 3
    assert tree(out) == whole


def test_other_threads_and_batches_are_within_two_levels(reference: Bundle, whole: dict[str, bytes]) -> None:
    """The bound that docs/engine.md states for everything that is not bit-equal."""
    (group,) = compose(reference.manifest, REQUEST, 2)
    pictures = []
    for threads, batch in ((1, 2), (2, 2), (1, 1), (1, 7)):
        with Engine.open(reference, threads=threads) as engine:
            pairs = engine.sample(group.pairs(), group.sampling.changed(batch=batch))
            pictures.append([pair.image.astype(int) for pair in pairs])
    for others in pictures[1:]:
        assert max(abs(a - b).max() for a, b in zip(pictures[0], others, strict=True)) <= 2
