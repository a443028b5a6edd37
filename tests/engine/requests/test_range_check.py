from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from msdm_engine import Bundle, Engine, PairRequest
from msdm_engine.bundle.manifest import Manifest
from msdm_engine.cli import main
from msdm_engine.conditions.colour import Colour, RegionColour
from msdm_engine.conditions.metadata import Metadata
from msdm_engine.contract import CONDITIONER, DENOISER
from msdm_engine.errors import BundleError
from msdm_engine.requests.condition_ranges import Calibrated, Departure, condition_values, departures, ranges_of
from msdm_engine.requests.range_check import RangeCheck

REGION = RegionColour((100.0, 50.0, 190.0), (20.0, 30.0, 10.0))


def request_with(**changed: Any) -> PairRequest:
    instances = np.zeros((32, 64), np.uint16)
    instances[4:8, 4:8], instances[20:28, 20:28] = 3, 9  # 16 and 64 px
    given: dict[str, Any] = {
        "instances": instances,
        "colour": Colour(REGION, replace(REGION, mean=(200.0, 150.0, 220.0))),
        "metadata": Metadata(description="violet round nuclei"),
        **changed,
    }
    return PairRequest(0, 1, 32, 64, **given)


def test_conditions_are_measured_from_the_request(fake_engine: Engine) -> None:
    values = condition_values(request_with(), fake_engine.tokenizer)
    assert values["nuclear area fraction"] == 80 / 2048
    assert values["nuclei on 10,000 px"] == pytest.approx(2 * 10_000 / 2048)
    assert values["median nuclear area in px"] == 40
    assert (values["height in px"], values["width in px"]) == (32, 64)
    assert (values["foreground green mean"], values["background green mean"]) == (50, 150)
    assert values["background blue std"] == 10
    assert (values["text tokens"], values["unknown words in the text"]) == (3, 0)
    words = condition_values(request_with(metadata=Metadata(description="violet gizmo")), fake_engine.tokenizer)
    assert words["unknown words in the text"] == 1


def test_what_is_not_given_has_no_value(fake_engine: Engine) -> None:
    values = condition_values(request_with(instances=None, colour=Colour(), metadata=Metadata()), fake_engine.tokenizer)
    given = ("morphology given", "foreground colour given", "background colour given", "text given")
    assert values == {"height in px": 32, "width in px": 64, **dict.fromkeys(given, 0.0)}


def test_departures_say_value_and_range() -> None:
    ranges = ranges_of([{"background green mean": 61.0, "height in px": 128.0}, {"background green mean": 244.0}])
    low, high = departures({"background green mean": 12.0, "height in px": 256.0, "other": 5.0}, ranges)
    assert low.text() == "background green mean 12 is below the calibrated 61 to 244"
    assert high.text() == "height in px 256 is above the calibrated 128"
    assert departures({"background green mean": 61.0}, ranges) == []  # the ends belong to it


@pytest.fixture
def calibrate(bundle_folder: Path) -> Callable[..., Path]:
    """Writes ranges into the manifest of the bundle in the folder, as `msdm-calibrate ranges --store` does."""

    def write(**changed: Any) -> Path:
        path = bundle_folder / "manifest.json"
        manifest = Manifest.from_json(path.read_text())
        graphs = {name: manifest.files[spec.file].sha256 for name, spec in manifest.graphs.items()}
        conditions = {"background green mean": (61.0, 120.0), "height in px": (32.0, 64.0)}
        activations = {"denoiser/denoised": (-1.0, 1.0), "conditioner/pooled": (-0.1, 0.1)}
        calibrated = Calibrated("drawn", 3, graphs, conditions, activations)
        path.write_text(replace(manifest, calibrated=replace(calibrated, **changed)).to_json())
        return bundle_folder

    return write


def test_ranges_read_back_from_the_manifest(calibrate: Callable[..., Path]) -> None:
    calibrated = Bundle.open(calibrate()).manifest.calibrated
    assert calibrated is not None and calibrated.conditions["height in px"] == (32.0, 64.0)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("windows", 0),
        ("conditions", {"a": [2, 1]}),
        ("conditions", {"a": [1]}),
        ("graphs", {"denoiser": "x"}),
        ("more", 1),
    ],
)
def test_malformed_ranges_are_refused(calibrate: Callable[..., Path], key: str, value: Any) -> None:
    path = calibrate() / "manifest.json"
    raw = json.loads(path.read_text())
    raw["calibrated"][key] = value
    path.write_text(json.dumps(raw))
    with pytest.raises(BundleError, match="calibrated"):
        Bundle.open(path.parent)


def test_a_manifest_without_ranges_is_as_before(bundle_folder: Path) -> None:
    text = (bundle_folder / "manifest.json").read_text()
    assert "calibrated" not in text and Manifest.from_json(text).to_json() == text


def check(folder: Path, backend: Any) -> tuple[RangeCheck, Engine, list[tuple[Departure, int | None]]]:
    bundle = Bundle.open(folder)
    told: list[tuple[Departure, int | None]] = []
    made = RangeCheck(bundle, lambda departure, pair: told.append((departure, pair)))
    return made, Engine(bundle, made.watched(backend)), told


def test_each_reason_is_told_once_and_every_record_says_it(calibrate: Callable[..., Path], fake_backend: Any) -> None:
    ranges, engine, told = check(calibrate(activations={}), fake_backend)
    requests = [replace(request_with(), index=i) for i in range(3)]  # background green 150
    pairs = [ranges.marked(pair) for pair in engine.sample(ranges.seen(requests), critic=False)]
    assert [(departure.name, pair) for departure, pair in told] == [("background green mean", 0)]
    text = "background green mean 150 is above the calibrated 61 to 120"
    assert [pair.outside_ranges for pair in pairs] == [(text,)] * 3


def test_outputs_of_graphs_are_watched(calibrate: Callable[..., Path], fake_backend: Any) -> None:
    ranges, engine, told = check(calibrate(conditions={}), fake_backend)
    list(engine.sample(ranges.seen([request_with()]), critic=False))
    # Present maps are 1 in the pooled conditions; a quarter of the span -0.1 to 0.1 is granted on each side. The
    # denoised estimate of the fake is what was asked for, within -1 to 1.
    assert {(departure.name, departure.value) for departure, _ in told} >= {(f"{CONDITIONER}/pooled", 1.0)}
    assert not [departure for departure, _ in told if departure.name.startswith(DENOISER)]
    assert all(pair is None for _, pair in told)


def test_a_bundle_without_ranges_is_an_error(bundle_folder: Path, fake_backend: Any) -> None:
    with pytest.raises(BundleError, match=r"holds no calibrated ranges(.|\n)*msdm-calibrate ranges"):
        check(bundle_folder, fake_backend)


def test_ranges_of_another_graph_are_an_error(calibrate: Callable[..., Path], fake_backend: Any) -> None:
    stale = {name: "0" * 64 for name in ("text_encoder", "conditioner", "denoiser")}
    with pytest.raises(BundleError, match="stale: 'text_encoder'"):
        check(calibrate(graphs=stale), fake_backend)


@pytest.fixture
def sampled(monkeypatch: pytest.MonkeyPatch, fake_backend: Any, tmp_path: Path) -> Callable[..., Any]:
    """Runs `msdm-engine sample` on a bundle with the backend in memory."""
    monkeypatch.setattr("msdm_engine.engine.open_backend", lambda *args, **kwargs: fake_backend)

    def run(folder: Path, *more: str) -> Any:
        words = ["sample", "--invent", "--count", "2", "--size", "96", "--out", str(tmp_path / "set"), *more]
        return CliRunner().invoke(main, [*words, "--bundle", str(folder)])

    return run


def test_the_command_warns_and_records(
    calibrate: Callable[..., Path], sampled: Callable[..., Any], tmp_path: Path
) -> None:
    done = sampled(calibrate(activations={}), "--check-ranges")
    assert done.exit_code == 0, done.output
    warning = "warning: pair 0: height in px 96 is above the calibrated 32 to 64; told once"
    assert done.output.count("height in px") == 1 and warning in done.output
    records = [json.loads(line) for line in (tmp_path / "set" / "manifest.jsonl").read_text().splitlines()]
    assert [len(record["outside_ranges"]) for record in records] == [1, 1]
    assert json.loads((tmp_path / "set" / "set.json").read_text())["check_ranges"] is True


def test_the_log_has_value_and_range(calibrate: Callable[..., Path], sampled: Callable[..., Any]) -> None:
    done = sampled(calibrate(activations={}), "--check-ranges", "--log-json")
    (event,) = [json.loads(line) for line in done.stderr.splitlines() if '"outside_ranges"' in line]
    expected = asdict(Departure("height in px", 96.0, 32.0, 64.0))
    assert {key: event[key] for key in expected} == expected and (event["pair"], event["level"]) == (0, "warning")


def test_without_the_flag_nothing_is_checked(
    calibrate: Callable[..., Path], sampled: Callable[..., Any], tmp_path: Path
) -> None:
    done = sampled(calibrate())
    assert done.exit_code == 0 and "calibrated" not in done.output
    assert "outside_ranges" not in (tmp_path / "set" / "manifest.jsonl").read_text()


def test_the_command_needs_ranges(bundle_folder: Path, sampled: Callable[..., Any], tmp_path: Path) -> None:
    done = sampled(bundle_folder, "--check-ranges")
    assert done.exit_code == 3 and "holds no calibrated ranges" in done.output
    assert not (tmp_path / "set").exists()
