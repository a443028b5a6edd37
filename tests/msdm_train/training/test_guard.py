from __future__ import annotations

import math

import pytest

from msdm_train.training.guard import Guard


def test_a_lasting_rise_is_divergence() -> None:
    guard = Guard(factor=3, window=5)
    assert [guard.finding(1.0) for _ in range(5)] == [None] * 5
    assert not guard.suspicious
    found = [guard.finding(4.0) for _ in range(3)]
    # The median of five turns from 1 to 4 with the third of them.
    assert found[:2] == [None, None]
    assert found[2] == "the loss has diverged: its median over 5 steps is 4, it was 1"
    assert guard.suspicious


def test_single_hard_batches_pass() -> None:
    guard = Guard(factor=3, window=5)
    assert [guard.finding(100.0 if i % 3 == 0 else 1.0) for i in range(1, 30)] == [None] * 29


def test_a_fall_sets_the_bar_lower() -> None:
    guard = Guard(factor=3, window=1)
    assert [guard.finding(loss) for loss in (9.0, 4.0, 1.0, 3.0)] == [None] * 4
    assert guard.finding(3.01) is not None


def test_a_checkpoint_waits_before_the_rule_speaks() -> None:
    guard = Guard(factor=3, window=10)
    for _ in range(10):
        guard.finding(1.0)
    guard.finding(4.0)
    assert not guard.suspicious  # the median of two losses, 1 and 4, is 2.5
    guard.finding(4.0)
    assert guard.suspicious


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_always_counts(loss: float) -> None:
    assert Guard(factor=0, window=5).finding(loss) == f"the loss is {loss}"


def test_it_can_be_turned_off_and_begin_anew() -> None:
    off = Guard(factor=0, window=1)
    assert [off.finding(loss) for loss in (1.0, 1e9)] == [None, None]
    assert not off.suspicious
    guard = Guard(factor=2, window=1)
    guard.finding(1.0)
    guard.began_anew()
    assert guard.finding(50.0) is None
