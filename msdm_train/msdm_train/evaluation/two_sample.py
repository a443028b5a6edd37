"""Classifier two-sample test (Lopez-Paz and Oquab 2017): can it be told whether a picture is real or generated?

The accuracy on held-out fields: 1/2 means that nothing was found, 1 that each picture gives itself away. Windows of
one field look alike, so that a real field and the pictures of its conditions are always held out together. No p-value
is given: the test's binomial law needs independent pictures, and windows of a field are not.

Two or three fields of a split are too few to learn from: a classifier then takes the look of a field for a mark of its
class, and is wrong on all of the next. Pairs of train windows and these windows are therefore always learnt from, too;
only fields of the split are judged. What an accuracy near 1/2 is worth is said by two others of the same classifier:
on real windows with planted noise, which it has to find, and on real windows of the split against real windows of
train, which is what the difference of fields alone gives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from msdm_engine.errors import InputError

#: (items [n, ...], their labels 0 or 1, their folds, other items [m, ...]) -> [m] scores, above 0 for label 1.
Classifier = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray]
MAX_FOLDS = 5
#: Fold of items that are always learnt from and never judged.
NEVER_HELD = -1
#: Standard deviation of the random shift of each channel, of pixels in [-1, 1].
COLOUR_SHIFT = 0.25
#: Standard deviation of the noise that is planted in real pictures, of 255; barely seen.
PLANTED = 6.0
#: Accuracy on planted noise below which the test is taken for blind: half of the way from chance to all.
MIN_POWER = 0.75


@dataclass(frozen=True, eq=False)
class Sides:
    """Two classes of equally many items.

    Args:
        items: [n, ...] embeddings or pictures.
        labels: [n] 0 or 1.
        folds: [n] number of the fold that holds an item out; all items of a field are in one. :data:`NEVER_HELD`: none.
    """

    items: np.ndarray
    labels: np.ndarray
    folds: np.ndarray


def folds_of(fields: Sequence[str], count: int, seed: int) -> np.ndarray:
    """[n] fold of each item: whole fields are dealt out, the largest first, each to the smallest fold so far.

    Args:
        count: of folds; at least as many fields are there.
    """
    names, of, sizes = np.unique(fields, return_inverse=True, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(names))  # among fields of one size
    fold_of_name, filled = np.zeros(len(names), np.int64), np.zeros(count, np.int64)
    for name in order[np.argsort(-sizes[order], kind="stable")]:
        fold_of_name[name] = filled.argmin()
        filled[fold_of_name[name]] += sizes[name]
    return fold_of_name[of]


def count_of_folds(*sides: Sequence[str]) -> int:
    """Folds that fields of either side can fill: at most five.

    Raises:
        InputError: a side has one field only, so that none could be held out.
    """
    fields = min(len(set(side)) for side in sides)
    if fields < 2:
        raise InputError(
            "the two-sample test has one field only on a side",
            note="legal: two or more, for a classifier is tested on fields that it never saw",
            hint="use a split with more fields",
        )
    return min(MAX_FOLDS, fields)


def scores_of(sides: Sides, classify: Classifier) -> np.ndarray:
    """[n] score of each item by the classifier that never saw its fold; above 0 it says label 1; nan if never held."""
    scores = np.full(len(sides.labels), np.nan)
    for fold in np.unique(sides.folds[sides.folds != NEVER_HELD]):
        held = sides.folds == fold
        fit = ~held
        scores[held] = classify(sides.items[fit], sides.labels[fit], sides.folds[fit], sides.items[held])
    return scores


def told_apart(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two ways to count [n] pairs of partners; chance gives a mean of 1/2 in both.

    Args:
        first, second: [n] scores of the items of label 0 and of their partners of label 1.

    Returns:
        share of the two partners that is named rightly: its mean is the balanced accuracy; and whether the second
        partner scores higher, a tie counting half: a forced choice between the two, which a classifier that is off on
        the whole of an unknown field can still make.
    """
    named = ((first <= 0).astype(np.float64) + (second > 0)) / 2
    return named, (np.sign(second - first) + 1) / 2


def planted(images: np.ndarray, seed: int) -> np.ndarray:
    """[n, H, W, 3] uint8 pictures with Gaussian noise of :data:`PLANTED`: a fault that a classifier should find."""
    noise = np.random.default_rng(seed).normal(0, PLANTED, images.shape)
    return np.clip(np.rint(images + noise), 0, 255).astype(np.uint8)


def flaw_of(named: np.ndarray, fields: Sequence[str], power: float) -> str:
    """Why an accuracy near 1/2 or below it tells nothing of closeness; empty where nothing speaks against it.

    Args:
        named: [n] of :func:`told_apart`.
        fields: of the n pairs.
        power: accuracy of the same classifier on planted noise.
    """
    if power < MIN_POWER:
        return f"its classifier finds planted noise in {power:.0%} only"
    of = np.asarray(fields)
    if all(named[of == field].mean() < 0.5 for field in set(fields)):
        return "wrong on every field: a mark of generated pictures was found and turns over, which is not closeness"
    return ""


def logistic(items: np.ndarray, labels: np.ndarray, folds: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Logistic regression on standardised embeddings; its C is chosen by holding out the folds that are left."""
    model: Any = make_pipeline(StandardScaler(), LogisticRegression(max_iter=200, class_weight="balanced"))
    left = len(np.unique(folds))
    if left > 1:
        grid = {"logisticregression__C": [1e-4, 1e-3, 1e-2, 1e-1, 1.0]}
        model = GridSearchCV(model, grid, cv=GroupKFold(left)).fit(items, labels, groups=folds)
    else:
        model.set_params(logisticregression__C=1e-2).fit(items, labels)
    return model.decision_function(asked)


class SmallNet(nn.Module):
    """Three strided convolutions and a pooled linear readout: 25,000 parameters, receptive field 17 px.

    Beside the pixels it is given what they differ by from the mean of their 3 x 3 neighbours, enlarged four times:
    noise, blur and texture are then found in few steps.
    """

    def __init__(self) -> None:
        super().__init__()
        widths = (6, 24, 32, 48)
        layers: list[nn.Module] = []
        for kernel_px, (a, b) in zip((5, 3, 3), pairwise(widths), strict=True):
            layers += [nn.Conv2d(a, b, kernel_px, stride=2, padding=1), nn.GroupNorm(4, b), nn.ReLU()]
        self.features, self.readout = nn.Sequential(*layers), nn.Linear(widths[-1], 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, 3, H, W] in [-1, 1] -> [B] logits."""
        fine = 4 * (x - nn.functional.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False))
        return self.readout(self.features(torch.cat([x, fine], 1)).mean((2, 3)))[:, 0]


def pixel_classifier(*, steps: int, seed: int, batch: int = 16, crop_px: int = 64) -> Classifier:
    """A small network on pixels, trained anew for each fold on random crops, flipped, turned and shifted in colour.

    With a few fields to learn from, a network that may look at a field's colour takes it for a mark of its class and
    fails on others; the embeddings' test sees colour.

    Args:
        steps: updates (AdamW, 3e-3, cosine to zero).
        crop_px: side of the crops; what is asked is judged whole.
    """

    def classify(items: np.ndarray, labels: np.ndarray, folds: np.ndarray, asked: np.ndarray) -> np.ndarray:
        del folds  # all that is given is trained on
        rng = np.random.default_rng(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            net = SmallNet()
        optimiser = torch.optim.AdamW(net.parameters(), 3e-3)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        side = min(crop_px, *items.shape[1:3])
        classes = [np.flatnonzero(labels == label) for label in (0, 1)]
        for _ in range(steps):
            picked = np.concatenate([rng.choice(members, batch // 2) for members in classes])
            x = np.stack([_crop(items[i], side, rng) for i in picked])
            wanted = torch.from_numpy(labels[picked]).float()
            colour = torch.from_numpy(rng.normal(0, COLOUR_SHIFT, (batch, 3, 1, 1))).float()
            loss = nn.functional.binary_cross_entropy_with_logits(net(_signed(x) + colour), wanted)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        with torch.inference_mode():
            logits = [net(_signed(asked[k : k + batch])) for k in range(0, len(asked), batch)]
        return torch.cat(logits).numpy()

    return classify


def _crop(image: np.ndarray, side: int, rng: np.random.Generator) -> np.ndarray:
    y, x = (rng.integers(length - side + 1) for length in image.shape[:2])
    turned = np.rot90(image[y : y + side, x : x + side], int(rng.integers(4)))
    return turned[:, ::-1] if rng.integers(2) else turned


def _signed(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 127.5 - 1
