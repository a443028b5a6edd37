"""A whole set from request to files, on a backend in memory: what is recorded, refused, interrupted and resumed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import msdm_engine.engine
from msdm_engine import Bundle
from msdm_engine.cli import main
from msdm_engine.cli_errors import INTERRUPTED
from msdm_engine.conditions.metadata import Metadata
from msdm_engine.errors import BackendError, InputError, MsdmError, NumericsError, OutputError, RequestError
from msdm_engine.log import Log
from msdm_engine.output.job import generate, processor_name
from msdm_engine.output.png import PNG_CODEC, png_bytes, png_text
from msdm_engine.output.records import read_records
from msdm_engine.output.verify import verify_set
from msdm_engine.requests.request import ColourChoice, GroupRequest, Invent, Layout, Masks, SetRequest

GROUP = GroupRequest(Layout("round", {"crowding": 0.2}), count=5, steps=3, preset="lilac-round")
REQUEST = SetRequest((GROUP,), seed=4)


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def mask_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "masks"
    folder.mkdir()
    for i in range(3):
        labels = np.zeros((32, 48), np.uint16)
        labels[4 : 12 + 4 * i, 4:20] = 1
        (folder / f"m{i}.png").write_bytes(png_bytes(labels))
    return folder


def make(out: Path, bundle: Path, request: SetRequest = REQUEST, **options: Any) -> int:
    return generate(request, out, bundle=bundle, threads=1, **options)


def test_one_set_of_many_groups(bundle_folder: Path, mask_folder: Path, backends: list[Any], tmp_path: Path) -> None:
    groups = (
        replace(GROUP, count=3, seed=9, metadata=Metadata(indication="colon")),
        GroupRequest(Masks(mask_folder), count=4),
        GroupRequest(Invent(), count=1, height_px=50, width_px=40, colour=ColourChoice(jitter=3), preset="lilac-round"),
    )
    assert make(tmp_path / "out", bundle_folder, SetRequest(groups, seed=4)) == 8
    assert verify_set(tmp_path / "out").problems == ()
    records = [record for record in read_records(tmp_path / "out") if record]
    assert [record["index"] for record in records] == list(range(8))
    assert [record["seed"] for record in records] == [9] * 3 + [4] * 5
    assert [record["morphology"] for record in records] == [
        *["layout round"] * 3,
        *[f"mask m{i}.png" for i in (0, 1, 2, 0)],
        "invented",
    ]
    assert [(r["height_px"], r["width_px"]) for r in records] == [(64, 64)] * 3 + [(32, 48)] * 4 + [(50, 40)]
    assert records[0]["metadata"] == {"assay": "", "indication": "colon", "description": "violet round nuclei"}
    assert backends[0].closed


def test_the_header_says_what_decides_the_bytes(
    bundle_folder: Path, mask_folder: Path, backends: list[Any], tmp_path: Path
) -> None:
    request = SetRequest((GROUP, GroupRequest(Masks(mask_folder))), seed=4)
    make(tmp_path / "out", bundle_folder, request, batch=3)
    header = json.loads((tmp_path / "out" / "set.json").read_text())
    bundle = Bundle.open(bundle_folder)
    assert header["pairs"] == 8
    assert header["bundle"] == {"name": "fake", "sha256": bundle.sha256}
    assert header["data"] == {"name": "drawn", "licence": "CC0-1.0", "source": "made by a test"}
    assert header["request"] == request.to_json() and header["request_sha256"] == request.sha256()
    assert {"msdm", "numpy", "opencv", "device", "backend", "version", "threads"} == set(header["engine"])
    assert header["engine"]["device"] == processor_name() != ""
    assert header["output"] == {"format": "folder", "png": PNG_CODEC} and "shard" not in header
    first, second = header["groups"]
    assert (first["first"], first["count"], first["preset"], first["masks_sha256"]) == (0, 5, "lilac-round", None)
    assert (second["first"], second["count"], second["preset"]) == (5, 3, None)
    assert len(second["masks_sha256"]) == 64
    assert first["colour"]["foreground"]["mean"] == [100.0, 50.0, 190.0]
    assert (first["sampling"]["batch"], first["sampling"]["steps"]) == (3, 3)
    text = png_text((tmp_path / "out" / "images" / "000005.png").read_bytes())
    assert text["Software"] == f"msdm {version('msdm')}" and text["Data licence"] == "CC0-1.0"
    assert text["Bundle"] == f"fake sha256:{bundle.sha256}" and text["Request"] == f"sha256:{request.sha256()}"
    assert (text["Seed"], text["Pair"]) == ("4", "5")


def test_twice_the_same_and_another_seed_another_set(bundle_folder: Path, backends: list[Any], tmp_path: Path) -> None:
    for name, seed in (("a", 4), ("b", 4), ("c", 5)):
        make(tmp_path / name, bundle_folder, replace(REQUEST, seed=seed))
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    a, c = tree(tmp_path / "a"), tree(tmp_path / "c")
    assert set(a) == set(c) and all(a[name] != c[name] for name in a)


class Interrupt:
    """Stops a run of the denoiser, counted from 1, once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fake_backend: Any, at: int, error: BaseException) -> None:
        runs, original = iter(range(1, 1000)), type(fake_backend).run

        def run(backend: Any, graph: str, inputs: dict[str, np.ndarray]) -> Any:
            if graph == "denoiser" and next(runs) == at:
                raise error
            return original(backend, graph, inputs)

        monkeypatch.setattr(type(fake_backend), "run", run)


@pytest.mark.parametrize("at", [1, 4, 5, 9])  # three batches of two, of three steps each
def test_interrupted_and_resumed_is_the_same_set(
    at: int,
    bundle_folder: Path,
    backends: list[Any],
    fake_backend: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make(tmp_path / "whole", bundle_folder)
    Interrupt(monkeypatch, fake_backend, at, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "out", bundle_folder)
    found = verify_set(tmp_path / "out")
    assert found.whole == 2 * ((at - 1) // 3)
    assert not [problem for problem in found.problems if "as it was" in problem or "not listed" in problem]
    assert make(tmp_path / "out", bundle_folder, resume=True) == 5 - found.whole
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")
    assert all(backend.closed for backend in backends)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"threads": 2}, r"another engine\.threads"),
        ({"batch": 4}, r"another groups\[0\]\.sampling\.batch"),
        ({"request": SetRequest((GROUP,), seed=5)}, r"another request\.seed"),
        ({"request": SetRequest((replace(GROUP, count=6),), seed=4)}, r"another request\.groups\[0\]\.count"),
        ({"request": SetRequest((replace(GROUP, steps=4),), seed=4)}, r"another request\.groups\[0\]\.steps"),
        ({"request": SetRequest((GROUP, GROUP), seed=4)}, r"another request\.groups"),
    ],
)
def test_a_resume_with_anything_else_is_refused(
    changes: dict[str, Any], named: str, bundle_folder: Path, backends: list[Any], tmp_path: Path
) -> None:
    make(tmp_path / "out", bundle_folder)
    before = tree(tmp_path / "out")
    options = {"request": REQUEST, "threads": 1, "batch": None, **changes}
    request = options.pop("request")
    with pytest.raises(OutputError, match=named):
        generate(request, tmp_path / "out", bundle=bundle_folder, resume=True, **options)
    assert tree(tmp_path / "out") == before


def test_a_resume_with_another_bundle_is_refused(
    edit_manifest: Callable[..., Path], bundle_folder: Path, backends: list[Any], tmp_path: Path
) -> None:
    make(tmp_path / "out", bundle_folder)
    edit_manifest(lambda raw: raw["training"].update(steps=1))
    with pytest.raises(OutputError, match=r"another bundle\.sha256"):
        make(tmp_path / "out", bundle_folder, resume=True)


def test_a_resume_with_other_masks_or_another_colour_picture_is_refused(
    bundle_folder: Path, mask_folder: Path, backends: list[Any], tmp_path: Path
) -> None:
    """Of both the request holds the name only."""
    tile = tmp_path / "tile.png"
    tile.write_bytes(png_bytes(np.full((32, 48, 3), 90, np.uint8)))
    colour = ColourChoice(image=tile, mask=mask_folder / "m0.png")
    request = SetRequest((GroupRequest(Masks(mask_folder), colour=colour),))
    make(tmp_path / "out", bundle_folder, request)
    tile.write_bytes(png_bytes(np.full((32, 48, 3), 91, np.uint8)))
    with pytest.raises(OutputError, match=r"another groups\[0\]\.colour\.foreground\.mean\[0\]"):
        make(tmp_path / "out", bundle_folder, request, resume=True)
    tile.write_bytes(png_bytes(np.full((32, 48, 3), 90, np.uint8)))
    (mask_folder / "m1.png").write_bytes((mask_folder / "m2.png").read_bytes())
    with pytest.raises(OutputError, match=r"another groups\[0\]\.masks_sha256"):
        make(tmp_path / "out", bundle_folder, request, resume=True)


def test_a_mask_that_becomes_unreadable_midway(
    bundle_folder: Path, mask_folder: Path, backends: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = SetRequest((GroupRequest(Masks(mask_folder), count=6),))
    make(tmp_path / "whole", bundle_folder, request)
    third = (mask_folder / "m2.png").read_bytes()
    original = msdm_engine.requests.compose.read_instances
    reads = iter(range(1000))

    def read(path: Path) -> np.ndarray:
        if next(reads) == 0:  # the first pair is drawn: all three were read and checked before
            (mask_folder / "m2.png").write_bytes(b"lost")
        return original(path)

    monkeypatch.setattr(msdm_engine.requests.compose, "read_instances", read)
    with pytest.raises(InputError, match=r"m2\.png cannot be read"):
        make(tmp_path / "out", bundle_folder, request)
    found = verify_set(tmp_path / "out")
    assert found.whole == 2 and found.problems == (
        "4 of 6 pairs are not there yet, first 2",
        "contact_sheet.png is missing",
    )
    with pytest.raises(InputError, match=r"m2\.png"):  # still so: found before anything is made
        make(tmp_path / "out", bundle_folder, request, resume=True)
    (mask_folder / "m2.png").write_bytes(third)
    make(tmp_path / "out", bundle_folder, request, resume=True)
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


@pytest.mark.parametrize(
    ("graph", "call", "whole", "message"),
    [
        ("denoiser", 5, 2, r"graph 'denoiser' .* pair 3, seed 4, step 2 of 3 \(noise level 2\.023\)"),
        ("conditioner", 3, 4, r"graph 'conditioner' .* pair 4, seed 4, before the first step"),
        ("text_encoder", 1, 0, r"graph 'text_encoder' .* pair 0, seed 4, before the first step"),
    ],
)
def test_values_that_are_not_finite(
    graph: str,
    call: int,
    whole: int,
    message: str,
    bundle_folder: Path,
    backends: list[Any],
    fake_backend: Any,
    tmp_path: Path,
) -> None:
    make(tmp_path / "whole", bundle_folder)
    fake_backend.poison = {(graph, call): 1 if graph == "denoiser" else 0}
    with pytest.raises(NumericsError, match=message):
        make(tmp_path / "out", bundle_folder)
    found = verify_set(tmp_path / "out")
    assert found.whole == whole and "as it was" not in str(found.problems)
    fake_backend.poison = {}
    assert make(tmp_path / "out", bundle_folder, resume=True) == 5 - whole
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


@pytest.mark.parametrize(
    ("request_", "error", "message"),
    [
        (SetRequest((replace(GROUP, preset="lilac"),)), RequestError, "unknown preset"),
        (SetRequest((replace(GROUP, metadata=Metadata(description="a " * 9)),)), RequestError, "9 tokens is too long"),
        (SetRequest((replace(GROUP, metadata=Metadata(description="\ud800")),)), RequestError, "not Unicode text"),
        (SetRequest((GroupRequest(Masks(Path("no"))),)), InputError, "mask folder"),
        (SetRequest((GROUP, replace(GROUP, preset="lilac"))), RequestError, "group 1: unknown preset"),
    ],
)
def test_what_can_be_checked_is_checked_before_the_folder_is_made(
    request_: SetRequest, error: type[MsdmError], message: str, bundle_folder: Path, backends: Any, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        make(tmp_path / "out", bundle_folder, request_)
    assert not (tmp_path / "out").exists()


def test_no_output_folder(bundle_folder: Path) -> None:
    with pytest.raises(RequestError, match="--out FOLDER"):
        generate(REQUEST, None, bundle=bundle_folder)


def command(bundle: Path, out: Path, *more: str) -> list[str]:
    return ["sample", "--layout", "round", "--count", "3", "--bundle", str(bundle), "--out", str(out), *more]


def test_log_json_is_one_object_a_line(bundle_folder: Path, backends: list[Any], tmp_path: Path) -> None:
    done = CliRunner().invoke(main, command(bundle_folder, tmp_path / "out", "--log-json", "--verbose"))
    assert done.exit_code == 0 and done.stdout == ""
    events = [json.loads(line) for line in done.stderr.splitlines()]
    assert [event["event"] for event in events] == ["opened", *["pair"] * 3, "stages", "done"]
    assert [event["index"] for event in events[1:4]] == [0, 1, 2]
    assert events[0]["pairs"] == events[-1]["pairs"] == 3
    stages = events[-2]
    assert stages["encode"]["runs"] == 3 and stages["encode"]["busy_s"] > 0
    assert stages["sample"]["runs"] == 4  # the last time it says that there are no more
    assert events[-1]["out"] == str(tmp_path / "out") and events[-1]["pairs_per_second"] > 0
    done = CliRunner().invoke(main, command(bundle_folder, tmp_path / "out", "--log-json", "--resume"))
    assert [json.loads(line)["event"] for line in done.stderr.splitlines()] == ["opened", "resuming", "stages", "done"]
    done = CliRunner().invoke(main, command(bundle_folder, tmp_path / "out", "--log-json"))
    (event,) = [json.loads(line) for line in done.stderr.splitlines() if "error" in line]
    assert done.exit_code == event["exit_code"] == 5
    assert set(event) == {"event", "what", "note", "hint", "exit_code"} and "--resume" in event["hint"]


def test_an_interrupt_is_an_event_too(
    bundle_folder: Path, backends: Any, fake_backend: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for flags, check in ((["--log-json"], json.loads), ([], str)):
        Interrupt(monkeypatch, fake_backend, 1, KeyboardInterrupt())
        done = CliRunner().invoke(main, command(bundle_folder, tmp_path / "".join(["out", *flags]), *flags))
        assert done.exit_code == INTERRUPTED == 130
        last = check(done.stderr.splitlines()[-1])
        assert "--resume" in str(last) and "interrupted" in str(last)


def test_quiet_and_plain_and_verbose(bundle_folder: Path, backends: list[Any], tmp_path: Path) -> None:
    quiet = CliRunner().invoke(main, command(bundle_folder, tmp_path / "a", "--quiet"))
    assert quiet.exit_code == 0 and quiet.output == ""
    plain = CliRunner().invoke(main, command(bundle_folder, tmp_path / "b"))
    (summary,) = plain.stdout.splitlines()
    assert summary.startswith("3 pairs in ") and " pairs/s), look at " in summary
    assert str(tmp_path / "b" / "contact_sheet.png") in summary
    assert "opened" not in plain.stderr
    verbose = CliRunner().invoke(main, command(bundle_folder, tmp_path / "c", "--verbose"))
    assert "opened bundle=" in verbose.stderr and "pair index=2" in verbose.stderr
    assert "stages sample=busy " in verbose.stderr and " encode=busy " in verbose.stderr
    failed = CliRunner().invoke(main, command(bundle_folder, tmp_path / "c", "--quiet"))
    assert failed.exit_code == 5 and "error: output" in failed.stderr


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["sample", "--layout", "rund"], 2),
        (["sample", "--invent", "--format", "tar"], 2),
        (["sample", "--invent", "--shard", "4/4"], 2),
        (["merge", "no-set"], 4),
        (["sample", "--unknown-flag"], 2),
        (["sample", "--invent", "--count", "many"], 2),
        (["sample", "--invent", "--backend", "none"], 2),
        (["sample", "--invent", "--bundle", "no-bundle"], 3),
        (["show", "--bundle", "no-bundle"], 3),
        (["sample", "--masks", "no-masks"], 4),
        (["sample", "no-request.yaml"], 4),
        (["verify", "no-set"], 5),
    ],
)
def test_exit_codes(arguments: list[str], code: int, bundle_folder: Path, tmp_path: Path) -> None:
    more = [] if "--bundle" in arguments or arguments[0] in ("verify", "merge") else ["--bundle", str(bundle_folder)]
    more += ["--out", str(tmp_path / "out")] if arguments[0] in ("sample", "merge") else []
    done = CliRunner().invoke(main, [*arguments, *more])
    assert done.exit_code == code, done.output
    assert "rror: " in done.stderr and "Traceback" not in done.output
    assert not (tmp_path / "out").exists()


def test_exit_codes_of_backend_and_numbers(
    bundle_folder: Path, backends: list[Any], fake_backend: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_backend.poison = {("denoiser", 1): 0}
    done = CliRunner().invoke(main, command(bundle_folder, tmp_path / "a"))
    assert done.exit_code == 7 and "graph 'denoiser'" in done.stderr

    def no_backend(*arguments: Any, **named: Any) -> Any:
        raise BackendError("the backend is not installed", hint="pip install it")

    monkeypatch.setattr(msdm_engine.engine, "open_backend", no_backend)
    done = CliRunner().invoke(main, command(bundle_folder, tmp_path / "b"))
    assert done.exit_code == 6 and not (tmp_path / "b").exists()


def test_a_log_without_anything_says_only_errors(capsys: pytest.CaptureFixture[str]) -> None:
    log = Log(quiet=True)
    log.detail("event", a=1)
    log.summary("done", "text")
    assert capsys.readouterr() == ("", "")
    log.error(RequestError("what", note="note", hint="hint"))
    assert capsys.readouterr().err == "error: what\n  note: note\n  hint: hint\n"
