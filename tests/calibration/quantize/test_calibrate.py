"""Targets, levels, migration, choices and resumption on a bundle made for them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from msdm_calibration.quantize import collect as collecting
from msdm_calibration.quantize.calibrate import Calibrated, calibrate, subject_of, uncalibrated
from msdm_calibration.quantize.grids import GRIDS
from msdm_calibration.quantize.levels import weights_from_errors
from msdm_calibration.quantize.migrate import factors
from msdm_calibration.quantize.rewrite import quantised
from msdm_calibration.quantize.samples import Layer, look
from msdm_calibration.quantize.settings import QuantizeSettings
from msdm_calibration.quantize.subject import Subject, relative_l2
from msdm_calibration.quantize.targets import targets_of
from msdm_engine.bundle.reader import Bundle
from msdm_engine.errors import BundleError, InputError, RequestError


@pytest.fixture
def subject(settings: QuantizeSettings) -> Subject:
    return subject_of(settings, Bundle.open(settings.bundle))[0]


@pytest.fixture
def calibrated(settings: QuantizeSettings) -> Calibrated:
    return calibrate(settings)


def test_the_first_and_the_last_convolution_are_kept(subject: Subject) -> None:
    assert [target.node for target in subject.targets.found] == ["conv_outlier", "conv_sized"]
    assert subject.targets.kept == {"conv_first": "first", "conv_last": "last"}
    assert list(subject.targets.blocks()) == ["block.0"]
    # 32 x 32 pixels, 16 channels in and out, 3 x 3, two operations each.
    assert subject.flops["conv_sized"] == 2 * 32 * 32 * 16 * 16 * 9


def test_little_work_is_kept(subject: Subject) -> None:
    flops = subject.flops | {"conv_outlier": 0.001 * sum(subject.flops.values())}
    assert targets_of(subject.model, flops).kept["conv_outlier"] == "small"  # type: ignore[arg-type]


def test_levels_weigh_by_squared_error() -> None:
    assert weights_from_errors(np.array([1.0, 2.0, 0.0])).tolist() == [0.2, 0.8, 0.0]
    assert weights_from_errors(np.zeros(4)).tolist() == [0.25] * 4


def test_factors_are_powers_of_two_and_move_the_outlier() -> None:
    found = factors(np.array([16.0, 1.0, 0.0]), np.array([1.0, 1.0, 1.0]), 0.5)
    assert found[0] / found[1] == 4.0  # the root of 16
    assert found[2] == 1.0
    assert (np.log2(found) % 1 == 0).all()


def test_migration_alone_changes_nothing_to_the_bit(subject: Subject) -> None:
    target = subject.by_node["conv_outlier"]
    x = np.random.default_rng(0).standard_normal((2, 16, 8, 8)).astype(np.float32)
    moved = np.exp2(np.arange(16) - 8).astype(np.float32)
    layer = Layer(subject, target.node)
    given = layer(x / moved.reshape(1, -1, 1, 1), target.weight * target.per_input(moved))
    assert given.tobytes() == layer(x, target.weight).tobytes()


def test_the_outlier_is_migrated_and_the_sized_input_follows_its_level(calibrated: Calibrated) -> None:
    recipes = {node: choice.recipe for node, choice in calibrated.choices.items()}
    migration = recipes["conv_outlier"].migration
    assert migration is not None
    assert migration[0] >= 8 * np.median(migration[1:])
    levels = recipes["conv_sized"].levels
    assert levels is not None
    # The input is sigma times what tanh bounds, and sigma falls by 2^12: factors fall with it.
    assert (np.diff(levels) <= 0).all()
    assert levels[0] / levels[-1] >= 2**9
    assert calibrated.level_weights.sum() == pytest.approx(1.0)


def test_the_trajectory_is_far_closer_than_by_min_max(calibrated: Calibrated) -> None:
    subject = calibrated.subject
    expected = subject.finals(subject.sessions(), subject.requests)
    largest = {name: float(seen.max()) for name, seen in look(subject).channel_largest.items()}
    naive = quantised(
        subject.model, subject.by_node, uncalibrated(subject, GRIDS["int8"], largest), GRIDS["int8"], subject.sigmas
    )
    ours = calibrated.model(list(calibrated.choices))
    errors = [
        relative_l2(subject.finals(subject.sessions(model.SerializeToString()), subject.requests), expected)
        for model in (naive, ours)
    ]
    # An outlier of 64 leaves two codes to the other channels, and a range of sigma of 4000 none to the last steps.
    assert errors[1] < errors[0] / 5


def test_an_interrupted_calibration_ends_with_the_same_scales_to_the_byte(
    settings: QuantizeSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = calibrate(settings)
    interrupted = replace(settings, state=tmp_path / "other")
    saved = collecting._save

    def save_and_stop(*arguments: object) -> None:
        saved(*arguments)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(collecting, "_save", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            calibrate(interrupted)
    said: list[str] = []
    resumed = calibrate(interrupted, said.append)
    assert [text for text in said if text.startswith("histograms")] == ["histograms: 2 of 4 windows"]
    nodes = list(whole.choices)
    assert resumed.model(nodes).SerializeToString() == whole.model(nodes).SerializeToString()


def test_the_state_of_another_calibration_is_refused(settings: QuantizeSettings) -> None:
    calibrate(settings)
    with pytest.raises(InputError, match="is of another calibration"):
        calibrate(replace(settings, seed=1))
    (settings.state / "histograms-int8.npz").write_bytes(b"PK")
    with pytest.raises(InputError, match="cannot be read"):
        calibrate(settings)


def test_a_bundle_with_nothing_to_quantise_is_refused(settings: QuantizeSettings, make_bundle: object) -> None:
    plain = make_bundle("plain")  # type: ignore[operator]  # first and last convolution only
    with pytest.raises(BundleError, match="no matrix work"):
        calibrate(replace(settings, bundle=plain))


@pytest.mark.parametrize("change", [{"batch": 0}, {"threads": 0}, {"rest": "bf16"}, {"to": "int4"}])
def test_settings_out_of_range_are_refused(settings: QuantizeSettings, change: dict[str, object]) -> None:
    with pytest.raises(RequestError):
        replace(settings, **change)  # type: ignore[arg-type]
