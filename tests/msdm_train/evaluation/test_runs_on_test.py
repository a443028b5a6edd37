from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from msdm_engine.errors import InputError, OutputError, RequestError
from msdm_train.evaluation.context import Context, Embed, Segment
from msdm_train.evaluation.evaluate import evaluate
from msdm_train.evaluation.runs_on_test import check_test_run, log_test_run
from msdm_train.evaluation.sections import Section
from msdm_train.evaluation.settings import EvaluationSettings

SHA = "ab" * 32


def logged(log: Path, again: str = "", sha256: str = SHA) -> None:
    log_test_run(log, date="a day", name="small|er", bundle_sha256=sha256, data="drawn", side_px=64, again=again)


def rows(log: Path) -> list[str]:
    return [line for line in log.read_text().splitlines() if "`" in line and line.startswith("| a day")]


def test_a_test_run_needs_a_log(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="evaluation on the split test without a log"):
        check_test_run(None, SHA, "")
    with pytest.raises(InputError, match="cannot be read"):
        check_test_run(tmp_path, SHA, "")


def test_a_second_run_of_a_bundle_needs_a_reason(tmp_path: Path) -> None:
    log = tmp_path / "docs" / "test-runs.md"
    assert check_test_run(log, SHA, "") == log
    logged(log)
    with pytest.raises(RequestError, match="was evaluated on test before"):
        check_test_run(log, SHA, " ")
    check_test_run(log, "cd" * 32, "")  # another bundle
    check_test_run(log, SHA, "a metric was wrong")
    logged(log, "a metric | was\nwrong")
    assert rows(log) == [
        f"| a day | small/er | `{SHA}` | drawn | 64 |  |",
        f"| a day | small/er | `{SHA}` | drawn | 64 | a metric / was wrong |",
    ]
    assert log.read_text().startswith("# Evaluations on the split `test`")


def test_a_log_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        logged(tmp_path / "file" / "log.md")


def test_evaluating_test_is_logged_before_it_is_scored_and_once(
    bundle_folder: Path, small_pack: Path, tmp_path: Path, embed: Embed, evaluator: Segment, painter: Any
) -> None:
    settings = EvaluationSettings(bundle_folder, small_pack, "test", tmp_path / "one", side_px=32, quick=True)
    log = tmp_path / "log.md"
    lines: list[int] = []

    def look(context: Context) -> dict[str, Any]:
        lines.append(log.read_text().count("| painter |"))
        return {}

    sections = {"look": Section("Look", 1, look)}
    with pytest.raises(RequestError, match="without a log"):
        evaluate(settings, embed, evaluator, sections=sections)
    evaluate(settings, embed, evaluator, sections=sections, test_log=log)
    assert lines[-1] == 1
    # The same run is completed, or repeated from what it kept, without a second line.
    evaluate(settings, embed, evaluator, sections=sections, test_log=log)
    # Another report of the same bundle is a second look.
    elsewhere = replace(settings, out=tmp_path / "two")
    with pytest.raises(RequestError, match="was evaluated on test before"):
        evaluate(elsewhere, embed, evaluator, sections=sections, test_log=log)
    assert log.read_text().count("| painter |") == 1
    evaluate(elsewhere, embed, evaluator, sections=sections, test_log=log, again="the first had a wrong encoder")
    assert log.read_text().count("| painter |") == 2
    assert "the first had a wrong encoder |" in log.read_text()
