"""Pairs below an agreement are drawn again: which noise, which draw is kept, how often, in which batches."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import msdm_engine.engine
from msdm_engine import Engine, Pair, PairRequest
from msdm_engine.bundle.describe import describe
from msdm_engine.cli import main
from msdm_engine.contract import CRITIC, DENOISER
from msdm_engine.critic import Acceptance, Agreement, agreement_of
from msdm_engine.errors import OutputError, RequestError
from msdm_engine.gallery import write_gallery
from msdm_engine.gallery.columns import Columns
from msdm_engine.gallery.manifest import records
from msdm_engine.gallery.measure import measure
from msdm_engine.output.job import generate
from msdm_engine.output.png import png_text
from msdm_engine.output.records import read_records
from msdm_engine.output.verify import verify_set
from msdm_engine.redraw import Redrawn, sample_accepted
from msdm_engine.requests.compose import compose
from msdm_engine.requests.request import GroupRequest, Invent, SetRequest
from msdm_engine.sampling.noise import gaussian, step_of_attempt

#: Invented pairs of the fake backend are noise, and so is their agreement: about 0.5, another one in each draw.
REQUESTS = [PairRequest(index, 3, 16, 16) for index in range(7)]
#: Between the agreements of draws, so that some of REQUESTS are drawn once, some again, and some stay below.
MIDDLE = Acceptance(0.51, redraws=2)


def best_of_draws(engine: Engine, request: PairRequest, acceptance: Acceptance) -> Pair:
    """What must come of one pair: each draw made by itself, in order."""
    drawn: list[Pair] = []
    for attempt in range(acceptance.redraws + 1):
        (pair,) = engine.sample([replace(request, attempt=attempt)])
        drawn.append(pair)
        if dice(pair) >= acceptance.at_least:
            return replace(pair, draws=attempt + 1, accepted=True)
    return replace(max(drawn, key=dice), draws=len(drawn), accepted=False)


def dice(pair: Pair) -> float:
    assert pair.agreement is not None
    return pair.agreement.dice


def same(one: Pair, other: Pair) -> bool:
    return (
        (one.request.index, one.request.attempt, one.draws, one.accepted, one.agreement)
        == (other.request.index, other.request.attempt, other.draws, other.accepted, other.agreement)
        and np.array_equal(one.image, other.image)
        and np.array_equal(one.instances, other.instances)
    )


def batches(backend: Any, graph: str = DENOISER) -> int:
    return sum(name == graph for name, _ in backend.calls)


# --- noise -----------------------------------------------------------------------------------------------------


def test_the_first_attempt_has_the_noise_of_the_sample() -> None:
    assert [step_of_attempt(0, step) for step in (0, 17, 1000)] == [0, 17, 1000]


def test_no_two_attempts_share_a_step() -> None:
    steps = {step_of_attempt(attempt, step) for attempt in (0, 1, 2, 255) for step in (0, 1, 1000, 2**16 - 1)}
    assert len(steps) == 16
    assert max(steps) == 2**24 - 1  # the last that the counter of the noise holds


@pytest.mark.parametrize(("attempt", "step"), [(-1, 0), (256, 0), (0, -1), (0, 2**16)])
def test_an_attempt_out_of_range_is_refused(attempt: int, step: int) -> None:
    with pytest.raises(RequestError, match="is out of range"):
        step_of_attempt(attempt, step)


def test_a_request_of_an_attempt_out_of_range_is_refused() -> None:
    with pytest.raises(RequestError, match="attempt is 256"):
        PairRequest(0, 0, 32, 32, attempt=256)


def test_an_attempt_draws_its_own_noise_at_every_step(critic_engine: Engine, fake_backend: Any) -> None:
    sampling = critic_engine.bundle.manifest.sampling.changed(solver="euler-ancestral", steps=3, batch=1)
    list(critic_engine.sample([PairRequest(7, 3, 32, 32, attempt=2)], sampling))
    first, second, _ = [inputs for graph, inputs in fake_backend.calls if graph == DENOISER]
    start = gaussian(3, 7, 2 * 65536, 6, 32, 32).astype(np.float64)
    assert np.array_equal(first["state"][0], (40.0 * start).astype(np.float32))
    assert np.array_equal(first["noise"][0], gaussian(3, 7, 2 * 65536 + 1, 6, 32, 32))
    assert np.array_equal(second["noise"][0], gaussian(3, 7, 2 * 65536 + 2, 6, 32, 32))


# --- which draw is kept ----------------------------------------------------------------------------------------


def test_each_pair_is_what_its_own_draws_make_of_it(critic_engine: Engine) -> None:
    expected = [best_of_draws(critic_engine, request, MIDDLE) for request in REQUESTS]
    # Else the test would say nothing: drawn once, drawn again and accepted, kept though below, and not the last draw.
    assert {pair.draws for pair in expected} == {1, 2, 3} and {pair.accepted for pair in expected} == {True, False}
    assert any(pair.request.attempt + 1 < pair.draws for pair in expected)
    for order in (REQUESTS, REQUESTS[::-1], REQUESTS[2:5], REQUESTS[5:]):
        found = sorted(sample_accepted(critic_engine, order, MIDDLE), key=lambda pair: pair.request.index)
        assert [pair.request.index for pair in found] == sorted(request.index for request in order)
        assert all(same(pair, expected[pair.request.index]) for pair in found)


def test_pairs_that_are_good_at_once_are_those_of_the_engine(critic_engine: Engine, fake_backend: Any) -> None:
    plain = list(critic_engine.sample(REQUESTS))
    before = batches(fake_backend)
    found = list(sample_accepted(critic_engine, REQUESTS, Acceptance(0.0)))
    assert batches(fake_backend) == 2 * before
    assert all(same(pair, replace(other, accepted=True)) for pair, other in zip(found, plain, strict=True))


def test_a_critic_that_rejects_everything_is_asked_a_bounded_number_of_times(
    critic_engine: Engine, fake_backend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"critic_maps": np.full_like(inputs["image"], -1)}

    monkeypatch.setattr(type(fake_backend), "_judge", staticmethod(nothing))
    found = list(sample_accepted(critic_engine, REQUESTS, Acceptance(0.9, redraws=3)))
    # Of draws that are equally bad the first is kept, which is the pair as it was without all this.
    assert [(p.request.attempt, p.draws, p.accepted) for p in found] == [(0, 4, False)] * 7
    assert batches(fake_backend, CRITIC) == 4 * 4  # seven pairs fill four batches of two


def test_a_draw_is_decoded_once(critic_engine: Engine, fake_backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []

    def count(maps: np.ndarray, instances: np.ndarray) -> Agreement:
        decoded.append(1)
        return agreement_of(maps, instances)

    monkeypatch.setattr("msdm_engine.critic.agreement_of", count)
    found = list(sample_accepted(critic_engine, REQUESTS, MIDDLE))
    assert all(pair.agreement for pair in found)
    assert len(decoded) == sum(pair.draws for pair in found)


def test_no_redraws_only_mark(critic_engine: Engine, fake_backend: Any) -> None:
    found = list(sample_accepted(critic_engine, REQUESTS, Acceptance(1.0, redraws=0)))
    assert [(pair.draws, pair.accepted) for pair in found] == [(1, False)] * 7
    assert batches(fake_backend, CRITIC) == 4


# --- batches ---------------------------------------------------------------------------------------------------


def test_draws_share_their_batches(critic_engine: Engine, fake_backend: Any) -> None:
    found = list(sample_accepted(critic_engine, REQUESTS, MIDDLE))
    draws = sum(pair.draws for pair in found)
    # No batch is short while new pairs come; then at most one for each draw that the last pairs may have.
    assert batches(fake_backend, CRITIC) <= draws // 2 + 1 + MIDDLE.redraws


def mixed_sizes() -> Iterator[PairRequest]:
    for index, (height, width) in enumerate(itertools.islice(itertools.cycle([(16, 16), (16, 32), (32, 16)]), 9)):
        yield PairRequest(index, 3, height, width)


@pytest.mark.parametrize("waiting_px", [2**24, 1, 700])
def test_sizes_wait_for_their_like_but_not_for_ever(
    waiting_px: int, critic_engine: Engine, fake_backend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = [best_of_draws(critic_engine, request, MIDDLE) for request in mixed_sizes()]
    monkeypatch.setattr("msdm_engine.redraw.MAX_WAITING_PX", waiting_px)
    found = sorted(sample_accepted(critic_engine, mixed_sizes(), MIDDLE), key=lambda pair: pair.request.index)
    assert all(same(one, other) for one, other in zip(found, expected, strict=True))


def test_requests_are_taken_as_they_are_needed(critic_engine: Engine) -> None:
    taken: list[int] = []

    def endless() -> Iterator[PairRequest]:
        for index in range(10**9):
            taken.append(index)
            yield PairRequest(index, 3, 16, 16)

    next(sample_accepted(critic_engine, endless(), Acceptance(0.0)))
    assert taken == [0, 1, 2, 3]  # batches of two, one ahead


# --- what cannot be --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at_least", [-0.1, 1.1, float("nan")])
def test_an_agreement_out_of_range_is_refused(at_least: float) -> None:
    with pytest.raises(RequestError, match="an agreement of at least"):
        Acceptance(at_least)


@pytest.mark.parametrize("redraws", [-1, 256])
def test_redraws_out_of_range_are_refused(redraws: int) -> None:
    with pytest.raises(RequestError, match=f"{redraws} redraws"):
        Acceptance(0.5, redraws)


def test_a_bundle_without_critic_is_told_how_to_get_one(fake_engine: Engine, bundle_folder: Path) -> None:
    for run in (
        lambda: list(sample_accepted(fake_engine, REQUESTS, MIDDLE)),
        lambda: describe(REQUEST, bundle_folder, None),
        lambda: generate(REQUEST, bundle_folder / "out", bundle=bundle_folder),
    ):
        with pytest.raises(RequestError, match="the bundle fake has no critic") as caught:
            run()
        assert "msdm-export critic BUNDLE --from SEGMENTER" in str(caught.value.hint)


def test_an_agreement_and_no_critic_contradict(critic_folder: Path, tmp_path: Path) -> None:
    flags = ["sample", "--invent", "--bundle", str(critic_folder), "--min-agreement", "0.5", "--no-critic"]
    for more in (["--out", str(tmp_path / "out")], ["--validate"]):
        done = CliRunner().invoke(main, [*flags, *more])
        assert done.exit_code == 2 and "the critic is off" in done.stderr


def test_redraws_without_an_agreement_are_refused(critic_folder: Path) -> None:
    done = CliRunner().invoke(main, ["sample", "--invent", "--max-redraws", "3"])
    assert done.exit_code == 2 and "max_redraws goes with min_agreement" in done.stderr


# --- a whole set -----------------------------------------------------------------------------------------------

GROUP = GroupRequest(Invent(), count=7, height_px=16, width_px=16, acceptance=MIDDLE)
REQUEST = SetRequest((GROUP,), seed=3)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch, fake_backend: Any) -> None:
    monkeypatch.setattr(msdm_engine.engine, "open_backend", lambda *_, **__: type(fake_backend)())


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.usefixtures("opened")
def test_a_set_records_what_became_of_each_pair(critic_folder: Path, critic_engine: Engine, tmp_path: Path) -> None:
    out = tmp_path / "out"
    generate(REQUEST, out, bundle=critic_folder)
    assert verify_set(out).problems == ()
    for record, request in zip(read_records(out), REQUESTS, strict=True):
        assert record is not None
        pair = best_of_draws(critic_engine, request, MIDDLE)
        assert pair.agreement is not None
        assert record["agreement"] == {
            "dice": pair.agreement.dice,
            "aji": pair.agreement.aji,
            "accepted": pair.accepted,
            "draws": pair.draws,
        }
        assert record["attempt"] == pair.request.attempt
        text = png_text((out / record["image"]).read_bytes())
        assert text.get("Attempt", "0") == str(pair.request.attempt)
    header = json.loads((out / "set.json").read_text())
    assert header["critic"]["architecture"] == "threshold"
    assert header["request"]["groups"][0]["acceptance"] == {"at_least": 0.51, "redraws": 2}


@pytest.mark.usefixtures("opened")
@pytest.mark.parametrize("at", [2, 8, 14])
def test_interrupted_and_resumed_is_the_same_set(
    at: int, critic_folder: Path, fake_backend: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generate(REQUEST, tmp_path / "whole", bundle=critic_folder)
    runs, original = itertools.count(1), type(fake_backend).run

    def run(backend: Any, graph: str, inputs: dict[str, np.ndarray]) -> Any:
        if graph == DENOISER and next(runs) == at:
            raise KeyboardInterrupt
        return original(backend, graph, inputs)

    monkeypatch.setattr(type(fake_backend), "run", run)
    with pytest.raises(KeyboardInterrupt):
        generate(REQUEST, tmp_path / "out", bundle=critic_folder)
    generate(REQUEST, tmp_path / "out", bundle=critic_folder, resume=True)
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


@pytest.mark.usefixtures("opened")
def test_without_an_agreement_only_the_scores_are_added(critic_folder: Path, tmp_path: Path) -> None:
    plain = SetRequest((replace(GROUP, acceptance=None),), seed=3)
    assert "acceptance" not in plain.to_json()["groups"][0]
    generate(plain, tmp_path / "scored", bundle=critic_folder)
    generate(plain, tmp_path / "off", bundle=critic_folder, critic=False)
    for one, other in zip(read_records(tmp_path / "scored"), read_records(tmp_path / "off"), strict=True):
        assert one is not None
        assert set(one.pop("agreement")) == {"dice", "aji"}
        assert one == other
    assert json.loads((tmp_path / "off" / "set.json").read_text())["critic"] is None
    with pytest.raises(OutputError, match="another critic"):
        generate(plain, tmp_path / "off", bundle=critic_folder, resume=True)


@pytest.mark.usefixtures("opened")
def test_the_end_says_how_many(critic_folder: Path, critic_engine: Engine, tmp_path: Path) -> None:
    expected = [best_of_draws(critic_engine, request, MIDDLE) for request in REQUESTS]
    flags = ["--invent", "--size", "16", "--count", "7", "--seed", "3", "--bundle", str(critic_folder)]
    flags += ["--min-agreement", "0.51", "--max-redraws", "2", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(main, ["sample", *flags])
    again, below = sum(pair.draws > 1 for pair in expected), sum(not pair.accepted for pair in expected)
    draws = sum(pair.draws for pair in expected)
    last = f"{again} drawn again ({draws} draws in all), {below} below the agreement asked for"
    assert done.stdout.splitlines()[-1] == last
    logged = CliRunner().invoke(main, ["sample", *flags, "--resume", "--log-json"])
    event = json.loads(logged.stderr.splitlines()[-1])
    assert (event["redrawn"], event["draws"], event["below"]) == (0, 0, 0)  # by this call, which had nothing to do


def test_counts_are_of_pairs() -> None:
    request, nothing = PairRequest(0, 0, 32, 32), np.zeros((32, 32))
    counted = Redrawn()
    for draws, accepted in ((1, None), (1, True), (3, True), (4, False)):
        counted.count(Pair(request, nothing, nothing, None, draws, accepted))
    assert (counted.redrawn, counted.draws, counted.below) == (2, 9, 1)


@pytest.mark.usefixtures("opened")
def test_a_set_with_scores_is_shown_and_converted(critic_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    generate(REQUEST, out, bundle=critic_folder)
    assert write_gallery(out).is_file()
    columns, read = Columns(), list(records(out))
    for record in read:
        columns.add(record, measure(out, record, 64))
    measures = {row["label"]: row["values"] for row in columns.to_json()["measures"]}
    assert measures["Agreement, Dice"] == [round(record.agreement["dice"], 4) for record in read]
    assert set(measures["Accepted"]) == {0, 1} and set(measures["Draws"]) == {1, 2, 3}
    for form in ("coco", "webdataset", "imagefolder"):
        done = CliRunner().invoke(main, ["convert", str(out), "--to", form, "--out", str(tmp_path / form)])
        assert done.exit_code == 0, done.output


# --- cost ------------------------------------------------------------------------------------------------------


def test_validate_tells_the_worst_case(critic_folder: Path) -> None:
    text = describe(REQUEST, critic_folder, 2)
    # Seven pairs fill four batches of two, of three steps, of 16 x 16 px; each may be drawn three times.
    cost = 8 * 3 * 16 * 16 / 1e6
    assert f"7 pairs, cost {cost:.4g} megapixel-steps (at worst {3 * cost:.4g}, " in text
    assert "group 0: pairs below a Dice of 0.51 with the critic are drawn again, up to 2 time(s)" in text
    assert "at worst" not in describe(SetRequest((replace(GROUP, acceptance=None),)), critic_folder, 2)


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("at_least", [0.51, 1.0])
def test_the_worst_case_is_never_exceeded(
    count: int, at_least: float, critic_engine: Engine, fake_backend: Any
) -> None:
    group = replace(GROUP, count=count, acceptance=Acceptance(at_least, redraws=2))
    (composed,) = compose(critic_engine.bundle.manifest, SetRequest((group,), seed=3), 2)
    assert composed.acceptance is not None
    list(sample_accepted(critic_engine, composed.pairs(), composed.acceptance, composed.sampling))
    ((_, computed),) = composed.work.values()
    bound = computed * 3 // 2
    assert batches(fake_backend, CRITIC) <= bound
    if at_least == 1.0:
        assert batches(fake_backend, CRITIC) == bound
