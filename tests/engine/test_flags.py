"""The flags of ``msdm-engine sample`` as a request, and their contradictions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from msdm_engine.cli import main, sample
from msdm_engine.conditions.metadata import Metadata
from msdm_engine.errors import RequestError
from msdm_engine.flags import DEFAULT_COUNT, request_from_flags
from msdm_engine.requests.request import ColourChoice, GroupRequest, Invent, Layout, Masks, SetRequest
from msdm_engine.sampling.guidance import Guidance


def options(*arguments: str) -> dict[str, Any]:
    """The options that describe pairs, as the command line parses them."""
    context = sample.make_context("sample", list(arguments))
    own = "request_file out bundle backend threads batch resume validate root quiet verbose log_json"
    return {name: value for name, value in context.params.items() if name not in own.split()}


@pytest.mark.parametrize(
    ("arguments", "group", "seed"),
    [
        (["--invent"], GroupRequest(Invent(), count=DEFAULT_COUNT), 0),
        (["--masks", "m"], GroupRequest(Masks(Path("m"))), 0),
        (["--masks", "m", "--count", "3", "--seed", "7"], GroupRequest(Masks(Path("m")), count=3), 7),
        (["--layout", "gland"], GroupRequest(Layout("gland"), count=16), 0),
        (
            ["--layout", "round", "--area", "90", "--size", "80", "--count", "1"],
            GroupRequest(Layout("round", {"area_px": 90.0}), count=1, height_px=80, width_px=80),
            0,
        ),
        (
            ["--invent", "--preset", "p", "--steps", "3", "--solver", "euler"],
            GroupRequest(Invent(), count=16, preset="p", steps=3, solver="euler"),
            0,
        ),
        (
            ["--invent", "--assay", "a", "--indication", "b", "--description", "c"],
            GroupRequest(Invent(), count=16, metadata=Metadata("a", "b", "c")),
            0,
        ),
        (
            ["--invent", "--colour-from", "t.png", "--colour-mask", "m.png", "--colour-jitter", "4"],
            GroupRequest(Invent(), count=16, colour=ColourChoice(image=Path("t.png"), mask=Path("m.png"), jitter=4.0)),
            0,
        ),
        (
            ["--invent", "--guide-text", "1.5", "--guide-colour", "0.5"],
            GroupRequest(Invent(), count=16, guidance=Guidance(text=1.5, colour=0.5)),
            0,
        ),
        (["--invent", "--guide-text", "0"], GroupRequest(Invent(), count=16, guidance=Guidance()), 0),
    ],
)
def test_every_flag(arguments: list[str], group: GroupRequest, seed: int) -> None:
    assert request_from_flags(options(*arguments)) == SetRequest((group,), seed)


def test_flags_and_file_make_one_request(tmp_path: Path) -> None:
    """So that a set begun with flags is resumed with the same request in a file."""
    from msdm_engine.requests.file import parse_request

    text = "version: 1\nseed: 3\ngroups: [{morphology: {layout: round, area_px: 90}, count: 2, guidance: {text: 1}}]"
    flags = options("--layout", "round", "--area", "90", "--count", "2", "--guide-text", "1", "--seed", "3")
    assert parse_request(text, root=tmp_path).sha256() == request_from_flags(flags).sha256()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "exactly one of --masks FOLDER"),
        (["--invent", "--layout", "round"], "exactly one of"),
        (["--masks", "m", "--layout", "round"], "exactly one of"),
        (["--masks", "m", "--size", "64"], "--size and --masks"),
        (["--masks", "m", "--area", "64"], "--area goes with --layout"),
        (["--invent", "--area", "64"], "--area goes with --layout"),
        (["--layout", "roud"], "did you mean 'round'"),
        (["--layout", "round", "--area", "nan"], "area_px is nan"),
        (["--layout", "round", "--size", "32"], "height_px is 32"),
        (["--invent", "--count", "0"], "count is 0"),
        (["--masks", "m", "--count", "0"], "count is 0"),
        (["--invent", "--size", "15"], "16 to 4096"),
        (["--invent", "--seed", "-1"], "seed is -1"),
        (["--invent", "--steps", "0"], "steps is 0"),
        (["--invent", "--solver", "heun"], "unknown solver"),
        (["--invent", "--preset", ""], "the preset has no name"),
        (["--invent", "--colour-from", "a.png"], "--colour-mask"),
        (["--invent", "--colour-jitter", "65"], "jitter 65"),
        (["--invent", "--guide-text", "nan"], "guidance text is nan"),
        (["--invent", "--guide-colour", "-1"], "guidance colour is -1"),
    ],
)
def test_contradictions_and_illegal_values(arguments: list[str], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        request_from_flags(options(*arguments))


@pytest.mark.parametrize(
    ("flag", "value"),
    [("--count", ["1"]), ("--layout", ["round"]), ("--invent", []), ("--seed", ["0"]), ("--guide-text", ["0"])],
)
def test_a_flag_that_describes_pairs_is_refused_beside_a_file(flag: str, value: list[str], tmp_path: Path) -> None:
    """Also one that repeats the default: nobody has to know which of both would win."""
    file = tmp_path / "request.yaml"
    file.write_text("version: 1\ngroups: [{morphology: invent, count: 1}]")
    done = CliRunner().invoke(main, ["sample", str(file), "--out", str(tmp_path / "out"), flag, *value])
    assert done.exit_code == 2
    assert f"{flag} beside a request file" in done.output
    assert not (tmp_path / "out").exists()


def test_a_root_belongs_to_a_file(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["sample", "--invent", "--root", str(tmp_path), "--out", str(tmp_path / "out")])
    assert done.exit_code == 2 and "without a request file" in done.output


def test_the_help_names_every_solver_layout_and_exit_code() -> None:
    from msdm_engine import errors
    from msdm_engine.layouts import LAYOUTS
    from msdm_engine.sampling.schedule import SOLVERS

    assert isinstance(sample, click.Command)
    text = " ".join(CliRunner().invoke(main, ["sample", "--help"]).output.split())
    for word in (*LAYOUTS, *SOLVERS):
        assert word in text
    codes = {e.exit_code for e in vars(errors).values() if isinstance(e, type) and issubclass(e, errors.MsdmError)}
    general = " ".join(CliRunner().invoke(main, ["--help"]).output.split())
    assert all(f"{code} " in general for code in codes - {1})
