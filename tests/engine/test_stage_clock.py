"""Busy, starved and blocked seconds, on a clock that the test moves."""

from __future__ import annotations

import json
import threading

import pytest

from msdm_engine.stage_clock import StageClock, StageClocks, StageTimes


class Hand:
    """A clock whose seconds pass when the test says so."""

    def __init__(self) -> None:
        self.at = 0.0

    def __call__(self) -> float:
        return self.at

    def passes(self, seconds: float) -> None:
        self.at += seconds


def test_each_state_gets_its_own_seconds() -> None:
    hand = Hand()
    clock = StageClock(hand)
    hand.passes(100)  # told to nobody
    for _ in range(2):
        with clock.starved():
            hand.passes(1)
        with clock.busy():
            hand.passes(6)
        with clock.blocked():
            hand.passes(3)
        hand.passes(50)
    assert clock.times() == StageTimes(busy_s=12, starved_s=2, blocked_s=6, runs=2)
    assert clock.times().utilisation == 0.6


def test_a_state_within_another_interrupts_it() -> None:
    hand = Hand()
    clock = StageClock(hand)
    with clock.busy():
        hand.passes(1)
        with clock.blocked():
            hand.passes(10)
            with clock.busy():
                hand.passes(100)
        hand.passes(1000)
    assert clock.times() == StageTimes(busy_s=1101, blocked_s=10, runs=2)


def test_a_state_ends_with_an_error_too() -> None:
    hand = Hand()
    clock = StageClock(hand)

    def fail() -> None:
        with clock.busy():
            hand.passes(2)
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        fail()
    hand.passes(5)
    assert clock.times() == StageTimes(busy_s=2, runs=1)


def test_threads_add_up() -> None:
    """Four threads are busy over the same three seconds: twelve seconds of work."""
    hand, threads = Hand(), 4
    clock = StageClock(hand)
    begun, ended = threading.Barrier(threads + 1), threading.Barrier(threads + 1)

    def work() -> None:
        with clock.busy():
            begun.wait()
            ended.wait()

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    begun.wait()
    hand.passes(3)
    ended.wait()
    for worker in workers:
        worker.join()
    assert clock.times() == StageTimes(busy_s=12, runs=4)


def test_stages_stand_in_the_order_of_their_first_use() -> None:
    hand = Hand()
    clocks = StageClocks(hand)
    assert clocks.text() == "" and clocks.as_dict() == {}
    with clocks.stage("sample").busy():
        hand.passes(1)
    clocks.stage("encode")
    assert clocks.stage("sample") is clocks.stage("sample")
    assert list(clocks.times()) == ["sample", "encode"]
    assert clocks.times()["encode"].utilisation == 0
    assert json.loads(json.dumps(clocks.as_dict()))["sample"] == {
        "busy_s": 1, "starved_s": 0, "blocked_s": 0, "runs": 1, "utilisation": 1,
    }  # fmt: skip
    assert clocks.text().splitlines()[0] == "stage sample: busy 1.00 s (100%), starved 0.00 s, blocked 0.00 s, 1 run(s)"


def test_times_are_added_over_parts_and_taken_off_before() -> None:
    one, other = StageTimes(3, 1, 0.5, 7), StageTimes(1, 0.5, 0.25, 2)
    assert one + other == StageTimes(4, 1.5, 0.75, 9)
    assert (one + other) - other == one
