"""A calibration from beginning to end: from conditions to a recipe for every target."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import numpy as np
import onnx

from msdm_calibration.data import CalibrationData
from msdm_calibration.quantize.choose import Choice, choose
from msdm_calibration.quantize.collect import collect, feeds_of
from msdm_calibration.quantize.criteria import weight_scales
from msdm_calibration.quantize.grids import Grid, grid_named
from msdm_calibration.quantize.levels import level_errors, weights_from_errors
from msdm_calibration.quantize.migrate import migrations
from msdm_calibration.quantize.rewrite import Recipe, quantised
from msdm_calibration.quantize.samples import Samples, look
from msdm_calibration.quantize.settings import QuantizeSettings
from msdm_calibration.quantize.subject import Subject
from msdm_engine.bundle.reader import Bundle

Say = Callable[[str], None]
#: Calibrate on what the bundle was trained on; its own judges, val and test, stay unseen.
SPLIT = "train"


@dataclass(frozen=True)
class Calibrated:
    """A finished calibration.

    Args:
        level_errors: [N] what quantising one step alone did to the final state.
        level_weights: [N] that sum to one.
        choices: by node.
        source: the conditions, in words.
    """

    subject: Subject
    grid: Grid
    level_errors: np.ndarray
    level_weights: np.ndarray
    choices: dict[str, Choice]
    source: str

    def model(self, nodes: Collection[str], base: onnx.ModelProto | None = None) -> onnx.ModelProto:
        """The denoiser with these nodes quantised.

        Args:
            base: the graph in the precision of the rest; None: float32.
        """
        recipes = {node: self.choices[node].recipe for node in nodes}
        subject = self.subject
        return quantised(base or subject.model, subject.by_node, recipes, self.grid, subject.sigmas)


def calibrate(settings: QuantizeSettings, say: Say = lambda _: None) -> Calibrated:
    """Runs or goes on with a calibration.

    Raises:
        BundleError: no bundle, or nothing in it may be quantised.
        InputError: the data set has no such windows, or the state is of another calibration.
        RequestError: a setting out of range.
    """
    grid = grid_named(settings.to)
    bundle = Bundle.open(settings.bundle)
    subject, source = subject_of(settings, bundle)
    targets = subject.targets.found
    say(f"{len(targets)} nodes may be quantised; a first look at a few windows")
    samples = look(subject)
    say("effect of each noise level on the finished state")
    crude = {
        target.node: Recipe(
            max(float(np.max(samples.channel_largest[target.tensor])), 1e-30) / grid.largest,
            weight_scales(target.weight, target.axis, grid),
            None,
            target.bias,
        )
        for target in targets
    }
    model = quantised(subject.model, subject.by_node, crude, grid, subject.sigmas)
    errors = level_errors(subject, model.SerializeToString())
    weights = weights_from_errors(errors)
    say("migration of outlier channels")
    moved = migrations(subject, samples, _at(weights, samples), grid)
    feeds = feeds_of(subject, moved)
    counts = collect(subject, feeds, settings.state / f"histograms-{grid.name}.npz", say)
    say("choosing scales")
    choices = choose(subject, feeds, counts, samples, weights, grid)
    return Calibrated(subject, grid, errors, weights, choices, source)


def subject_of(settings: QuantizeSettings, bundle: Bundle) -> tuple[Subject, str]:
    """The bundle with the conditions of the data set, and those in words."""
    size = settings.size_px or bundle.manifest.sampling.size_px
    with CalibrationData(settings.data, bundle.manifest.n_classes) as data:
        windows = data.windows(settings.windows, size, settings.seed, (SPLIT,))
        source = f"{len(windows)} windows of {size} px, split {SPLIT} of {data.name}"
    sampling = bundle.manifest.sampling.changed(steps=settings.steps)
    requests = tuple(window.request for window in windows)
    return Subject(bundle, requests, sampling, settings.batch, settings.threads), source


def _at(weights: np.ndarray, samples: Samples) -> np.ndarray:
    kept = weights[list(samples.steps)]
    return np.asarray(kept / max(kept.sum(), 1e-30))


def uncalibrated(subject: Subject, grid: Grid, counts_largest: Mapping[str, float]) -> dict[str, Recipe]:
    """What min-max calibration without more makes: one scale for a weight, one for an input, from the largest values.

    For comparison: the default of common tools (per tensor, static, symmetric).

    Args:
        counts_largest: tensor -> largest absolute value that was seen.
    """
    found = {}
    for target in subject.targets.found:
        largest = float(np.abs(target.weight).max()) or 1e-30
        scales = np.full(target.weight.shape[target.axis], largest / grid.largest, np.float32)
        scale = max(counts_largest[target.tensor], 1e-30) / grid.largest
        found[target.node] = Recipe(scale, scales, None, target.bias)
    return found
