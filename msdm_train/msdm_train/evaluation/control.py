"""Control: what was asked against what came, each condition dropped in turn, text and colour exchanged.

Colours are compared by CIEDE2000 of the mean colours, nuclei by number, area and aspect ratio. Everything is made from
the conditions of the same real windows with the same noise, so that two pictures differ by the condition alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msdm_engine.errors import InputError
from msdm_train.evaluation import changes
from msdm_train.evaluation.context import Context
from msdm_train.evaluation.control_measures import (
    MEASURES,
    MIN_APART,
    REGIONS,
    Shape,
    between_fields,
    colour_errors,
    distance_of,
    mean_lab,
    relative_errors,
    shape_of,
    share_of_way,
)
from msdm_train.evaluation.control_plots import plot_examples, plot_shapes
from msdm_train.evaluation.samples import Sample
from msdm_train.evaluation.score_sheet import ScoreSheet


def run(context: Context) -> dict[str, Any]:
    """Rows, what is refused, and plots; see the module's docstring."""
    sets, sheet = Sets(context), ScoreSheet(context)
    score_colour(sets, sheet)
    sheet.attempt("nuclei found in pictures of given masks", lambda: score_given_masks(sets, sheet))
    score_invented(sets, sheet)
    score_dropped(sets, sheet)
    sheet.attempt("text exchanged", lambda: score_text(sets, sheet))
    plots = [plot_shapes(context.out, sets.asked_shapes, [shape_of(s.instances) for s in sets.invented])]
    plots.append(plot_examples(context.out, sets.examples()))
    return {**sheet.to_json(), "plots": plots}


@dataclass(frozen=True)
class Sets:
    """The sets of pictures that are compared, each made when it is first asked for."""

    context: Context

    @property
    def fields(self) -> list[str]:
        """Field of each window."""
        return [crop.field for crop in self.context.real]

    @cached_property
    def full(self) -> list[Sample]:
        """Under all conditions, first seed."""
        return list(self.context.generated[: len(self.context.real)])

    @cached_property
    def other_seed(self) -> list[Sample]:
        """The same with other noise."""
        n = len(self.context.real)
        if len(self.context.generated) >= 2 * n:
            return list(self.context.generated[n : 2 * n])
        return self.context.make("other-seed", changes.other_seed)

    @cached_property
    def colourless(self) -> list[Sample]:
        """Without colour."""
        return self.context.make("without-colour", changes.without_colour)

    @cached_property
    def textless(self) -> list[Sample]:
        """Without text."""
        return self.context.make("without-text", changes.without_text)

    @cached_property
    def invented(self) -> list[Sample]:
        """Without morphology."""
        return self.context.make("invented", changes.without_morphology)

    @cached_property
    def text_partners(self) -> list[int | None]:
        """Window whose text each window is given."""
        return changes.partners(self.context.real, changes.other_text, self.context.seed)

    @cached_property
    def colour_partners(self) -> list[int | None]:
        """Window whose colour each window is given."""
        return changes.partners(self.context.real, changes.other_window, self.context.seed + 1)

    @cached_property
    def other_text(self) -> list[Sample]:
        """With the partner's text, all else the same."""
        return self.context.make("text-swapped", changes.with_text_of(self.context.real, self.text_partners))

    @cached_property
    def other_text_colourless(self) -> list[Sample]:
        """With the partner's text and without colour."""
        swap = changes.with_text_of(self.context.real, self.text_partners)
        return self.context.make("text-swapped-without-colour", changes.both(changes.without_colour, swap))

    @cached_property
    def other_colour(self) -> list[Sample]:
        """With the partner's colour, all else the same."""
        return self.context.make("colour-swapped", changes.with_colour_of(self.context.real, self.colour_partners))

    @cached_property
    def asked_lab(self) -> NDArray[np.float64]:
        """[n, 2, 3] colours asked for: those of the real windows."""
        return mean_lab(self.context.real)

    @cached_property
    def asked_shapes(self) -> list[Shape]:
        """Nuclei asked for."""
        return [shape_of(crop.instances) for crop in self.context.real]

    def examples(self) -> list[tuple[str, list[Sample]]]:
        """Sets side by side, generated only."""
        found = [
            ("all conditions", self.full), ("without colour", self.colourless), ("without text", self.textless),
            ("without morphology", self.invented), ("another colour", self.other_colour),
        ]  # fmt: skip
        if any(partner is not None for partner in self.text_partners):
            found += [("another text", self.other_text), ("another text, no colour", self.other_text_colourless)]
        return found


def score_colour(sets: Sets, sheet: ScoreSheet) -> None:
    """Colour asked for and colour that came, with the own colour and with that of another window."""
    came = colour_errors(sets.asked_lab, mean_lab(sets.full))
    unasked = colour_errors(sets.asked_lab, mean_lab(sets.colourless))
    for i, region in enumerate(REGIONS):
        sheet.mean(
            f"colour asked and came, {region}", came[:, i], sets.fields,
            "CIEDE2000 of the mean colour of the region in the picture and in the real window that it was asked from; "
            "floor: equal; ceiling: the same where no colour was asked for",
            floor=0.0, ceiling=unasked[:, i], unit="Delta E", want="low",
        )  # fmt: skip
    if all(partner is None for partner in sets.colour_partners):
        sheet.refused.append({"name": "colour exchanged", "reason": "there is one window only, and no other colour"})
        return
    partner = _or_itself(sets.colour_partners)
    other = sets.asked_lab[partner]
    apart = colour_errors(other, sets.asked_lab)
    exchanged, ignored = colour_errors(other, mean_lab(sets.other_colour)), colour_errors(other, mean_lab(sets.full))
    for i, region in enumerate(REGIONS):
        sheet.mean(
            f"colour exchanged, {region}", np.where(apart[:, i] >= MIN_APART, exchanged[:, i], np.nan), sets.fields,
            f"as above, with the colour of another window that differs by {MIN_APART:g} or more; "
            "ceiling: the picture of the own colour, so what came if the exchange were ignored",
            floor=0.0, ceiling=ignored[:, i], unit="Delta E", want="low",
        )  # fmt: skip


def score_given_masks(sets: Sets, sheet: ScoreSheet) -> None:
    """What the evaluator finds in pictures of given masks; refused without an evaluator."""
    context = sets.context
    if not any(shape.count for shape in sets.asked_shapes):
        raise InputError("no window has a nucleus")
    in_made = [shape_of(labels) for labels in context.evaluator([s.image for s in sets.full])]
    in_real = [shape_of(labels) for labels in context.evaluator([c.image for c in context.real])]
    # Not the window before: neighbours in a field have as many nuclei of the same size.
    shuffled = [sets.asked_shapes[i] for i in _or_itself(sets.colour_partners)]
    for measure in MEASURES:
        sheet.mean(
            f"nuclei asked and found, {measure.name}", relative_errors(sets.asked_shapes, in_made, measure),
            sets.fields,
            f"|found - asked| / asked of the {measure.name if measure.name == 'count' else f'median {measure.name}'} "
            "of a picture, found by the evaluator; floor: the evaluator on the real window itself; "
            "ceiling: against the mask of another window, of another field where there is one",
            floor=relative_errors(sets.asked_shapes, in_real, measure),
            ceiling=relative_errors(shuffled, in_made, measure), want="low",
        )  # fmt: skip


def score_invented(sets: Sets, sheet: ScoreSheet) -> None:
    """Distributions of nuclei where the model invents the layout, against those of the real windows."""
    invented = [shape_of(sample.instances) for sample in sets.invented]
    for measure in MEASURES:

        def distance(picked: NDArray[np.int64], measure: Any = measure) -> float:
            return distance_of([sets.asked_shapes[i] for i in picked], [invented[i] for i in picked], measure)

        sheet.statistic(
            f"invented layout, {measure.name}", distance, sets.fields,
            "Wasserstein-1 distance between the nuclei of invented masks and of the real windows whose colour and text "
            "they were given; floor: one real field against all others, mean over fields",
            floor=between_fields(sets.asked_shapes, sets.fields, measure), unit=measure.unit, want="low",
        )  # fmt: skip


def score_dropped(sets: Sets, sheet: ScoreSheet) -> None:
    """How much a picture changes when one condition is left out, in units of what another seed changes."""
    embed = sets.context.embed
    full = embed([s.image for s in sets.full])
    seed_to_seed = np.linalg.norm(embed([s.image for s in sets.other_seed]) - full, axis=1).mean()
    for name, samples in (("colour", sets.colourless), ("text", sets.textless), ("morphology", sets.invented)):
        moved = np.linalg.norm(embed([s.image for s in samples]) - full, axis=1)
        sheet.mean(
            f"without {name}: change of the picture",
            moved / seed_to_seed if seed_to_seed > 0 else np.full(len(moved), np.nan), sets.fields,
            "distance of the embeddings with and without the condition, same noise, over the mean distance of two "
            "seeds under the same conditions; 0: the condition does nothing",
        )  # fmt: skip
        errors = colour_errors(sets.asked_lab, mean_lab(samples))
        for i, region in enumerate(REGIONS):
            sheet.mean(
                f"without {name}: colour of the {region}", errors[:, i], sets.fields,
                "CIEDE2000 to the mean colour of the real window", unit="Delta E",
            )  # fmt: skip


def score_text(sets: Sets, sheet: ScoreSheet) -> None:
    """Whether the picture follows the text of another window; refused where all windows have the same text."""
    context, chosen = sets.context, sets.text_partners
    if all(partner is None for partner in chosen):
        raise InputError("all windows have the same text", hint="give the regions of the data set descriptions")
    partner = _or_itself(chosen)
    embed = context.embed
    real = embed([c.image for c in context.real])
    texts = [changes.metadata_of(crop) for crop in context.real]
    centre = np.stack([real[[t == text for t in texts]].mean(0) for text in texts])
    full = embed([s.image for s in sets.full])
    arrived = share_of_way(full, full[partner], centre, centre[partner])
    pairs = (("all else fixed", full, sets.other_text), ("no colour given", None, sets.other_text_colourless))
    for how, before, samples in pairs:
        start = embed([s.image for s in sets.colourless]) if before is None else before
        sheet.mean(
            f"text exchanged, {how}: looks",
            share_of_way(start, embed([s.image for s in samples]), centre, centre[partner]), sets.fields,
            "share of the way from the mean embedding of real windows of the own text to that of the other text; "
            "floor: the text is ignored; ceiling: the generated picture of the other window under all its conditions",
            floor=0.0, ceiling=arrived, want="high",
        )  # fmt: skip
    apart = colour_errors(sets.asked_lab, sets.asked_lab[partner])
    before_lab, after_lab = mean_lab(sets.colourless), mean_lab(sets.other_text_colourless)
    shares = share_of_way(before_lab, after_lab, sets.asked_lab, sets.asked_lab[partner])
    for i, region in enumerate(REGIONS):
        sheet.mean(
            f"text exchanged, no colour given: colour of the {region}",
            np.where(apart[:, i] >= MIN_APART, shares[:, i], np.nan), sets.fields,
            "share of the way in CIELAB from the colour of the own window to that of the other, of pairs of windows "
            f"that differ by {MIN_APART:g} or more; floor: the text is ignored; ceiling: it arrives",
            floor=0.0, ceiling=1.0, want="high",
        )  # fmt: skip


def _or_itself(partners: list[int | None]) -> NDArray[np.int64]:
    """[n] the partner of each window, or its own number where it has none."""
    return np.array([i if partner is None else partner for i, partner in enumerate(partners)], np.int64)
