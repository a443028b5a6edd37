from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from msdm_train.evaluation.report import contact_sheet, summary, views_of
from msdm_train.evaluation.report_html import page
from msdm_train.evaluation.samples import Sample
from msdm_train.evaluation.views import section_view

SCORE = {
    "name": "a <score>", "value": 2.5, "low": 2.0, "high": 3.0, "floor": 0.0, "ceiling": 3.0, "n": 9, "n_fields": 3,
    "unit_of_value": "px", "want": "low", "weak": "its interval reaches the bad end", "protocol": "how & why",
}  # fmt: skip


def section(**result: Any) -> dict[str, Any]:
    return {"status": "done", "seconds": 3.0, "result": result}


def report(**sections: dict[str, Any]) -> dict[str, Any]:
    sampling = {"solver": "euler", "steps": 3}
    return {
        "bundle": {"name": "small", "sha256": "ab" * 32},
        "data": {"name": "drawn", "licence": "CC0-1.0", "source": "a test"},
        "protocol": {
            "split": "val", "real_windows": 8, "side_px": 32, "fields": ["a", "b"], "fields_too_small": ["c"],
            "generated_pairs": 16, "quick": True, "encoder": {"name": "mean"}, "evaluator": {"architecture": "plain"},
            "generator": {"sampling": sampling},
        },
        "sections": sections,
    }  # fmt: skip


def test_a_section_is_shown_whatever_it_returned() -> None:
    view = section_view(
        "one",
        "One",
        section(
            rows=[SCORE], rule="not shown twice", plots=["plots/a.png", {"path": "plots/b.png", "caption": "b"}],
            notes=["read me"], refused=[{"name": "part", "reason": "too few"}], loose=4,
            nested={"a": {"b": 1, "c": {"d": 2}}}, table=[{"group": "x", "n": 1}, {"group": "y", "w": 2}],
        ),
    )  # fmt: skip
    assert view.plots == (("plots/a.png", ""), ("plots/b.png", "b"))
    assert (view.notes, view.refused) == (("read me",), (("part", "too few"),))
    assert [(t.title, t.head, t.rows) for t in view.tables] == [
        ("", ("", "value"), (("loose", 4),)),
        ("nested", ("", "value"), (("a / b", 1), ("a / c / d", 2))),
        ("table", ("group", "n", "w"), (("x", 1, None), ("y", None, 2))),
    ]
    (row,) = view.rows
    assert (row.name, row.unit, row.floor, row.weak) == ("a <score>", "px", 0.0, SCORE["weak"])


def test_the_page_says_everything_and_escapes_it(tmp_path: Path) -> None:
    whole = report(one=section(rows=[SCORE]), two={"status": "refused", "seconds": 0.0, "reason": "no\n  hint: do"})
    text = page(whole, views_of(whole), tmp_path, b"png")
    for part in (
        "a &lt;score&gt;", "how &amp; why", "2 to 3", "weak: its interval reaches the bad end", "1 scores, 1 weak",
        "refused", "hint: do", "quick: few windows", "1 fields are too small", "All pictures on this page",
    ):  # fmt: skip
        assert part in text
    assert "<score>" not in text and "chosen on this very split" not in text
    whole["bundle"]["sampling_chosen_on"] = "val"
    assert "chosen on this very split" in page(whole, views_of(whole), tmp_path, b"png")
    # Scale of the bar: 0 to 3 over 154 px from 8 px on. The value 2.5 is at 8 + 154 * 2.5 / 3.
    assert "<circle cx=136.3 " in text


def test_the_summary_has_a_dozen_lines_at_most() -> None:
    whole = report(
        one=section(rows=[SCORE] * 30), two={"status": "refused", "seconds": 0.0, "reason": "no\n  hint: do"}
    )
    lines = summary(whole).splitlines()
    assert len(lines) == 12
    assert lines[0].startswith("small abababababab on val of drawn: 8 windows of 2 fields, 16 pairs of 32 px")
    assert lines[2].split() == ["two", "0", "s", "refused:", "no"]
    assert lines[3] == "weak: a <score>: 2.5 px"
    assert lines[-1] == "and 22 more"


@pytest.mark.parametrize("count", [1, 24, 50])
def test_the_contact_sheet_takes_evenly_spaced_pairs(count: int) -> None:
    samples = [
        Sample(np.full((32, 32, 3), i, np.uint8), np.zeros((32, 32), np.uint16), "f", "g", i) for i in range(count)
    ]
    sheet = contact_sheet(samples)
    greys = set(np.unique(sheet).tolist()) - {255}
    assert len(greys) == min(count, 24)


def test_scores_of_fidelity_and_usefulness_become_rows() -> None:
    pooled = {"dice": 0.8, "aji": 0.5, "pq": 0.4, "boundary_mean_px": 2.0}
    real = {"dice": 0.82, "aji": 0.6, "pq": 0.5, "boundary_mean_px": 1.5}
    shuffled = {"dice": 0.3, "aji": 0.1, "pq": 0.05, "boundary_mean_px": None}
    ratio = {key: {"value": pooled[key] / real[key], "low": None, "high": None, "n_fields": 3} for key in pooled}
    scores = {name: {"pooled": of} for name, of in (("generated", pooled), ("real", real), ("shuffled", shuffled))}
    fidelity = {"n": {"generated": 9}, "fields": ["a"], "scores": scores, "ratio": ratio, "protocol": "in words"}
    view = section_view("fidelity", "Fidelity", section(**fidelity))
    assert view.notes == ("in words",)
    weak = {row.name: row.weak for row in view.rows}
    assert weak["Dice, generated / real"] == ""  # 0.976
    assert weak["AJI, generated / real"] == "outside 0.95 to 1.05"
    assert (weak["Dice"], weak["boundary distance"]) == ("", "its interval does not reach what real tiles give")
    effect = {
        "arm": "columnar", "base": "real", "nuclei": "columnar", "fraction": 0.25, "metric": "pq", "value": 0.04,
        "low": -0.01, "high": 0.09, "n_fields": 5, "n_seeds": 2,
    }  # fmt: skip
    view = section_view("usefulness", "Use", section(effects=[effect, effect | {"metric": "dice"}]))
    (row,) = view.rows
    assert row.name == "columnar - real, columnar nuclei, 25% of the labels"
    assert (row.n, row.weak) == (10, "its interval reaches the bad end")
