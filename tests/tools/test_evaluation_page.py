from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

TOOL = Path(__file__).parents[2] / "tools/evaluation_page.py"


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("evaluation_page", TOOL)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def row(name: str, want: str, **values: float) -> dict[str, object]:
    ends = {"low": None, "high": None, "floor": None, "ceiling": None}
    return {"name": name, "n": 7, "n_fields": 3, "unit_of_value": "", "want": want, "weak": "", **ends, **values}


def report(*rows: dict[str, object]) -> str:
    done = {"status": "done", "seconds": 1.0, "result": {"rows": list(rows)}}
    return json.dumps({"sections": {"control": done}})


PAGE = "before\n<!-- rows val.json control -->\nold\n<!-- end -->\nafter\n"


def test_the_good_end_of_what_should_be_low_is_its_floor(tool: ModuleType, tmp_path: Path) -> None:
    low = row("distance", "low", value=1.5, low=1.25, high=2.0, floor=1.0, ceiling=3.0)
    high = row("agreement", "high", value=0.5, floor=0.25, ceiling=0.75)
    ratio = row("ratio", "one", value=1.1)
    (tmp_path / "val.json").write_text(report(low, high, ratio))
    lines = tool.filled(PAGE, tmp_path).splitlines()
    assert "| distance | 1.5 | 1.25 to 2 | 3 | 1 | 7 | 3 |  |" in lines
    assert "| agreement | 0.5 | - | 0.25 | 0.75 | 7 | 3 |  |" in lines
    assert "| ratio | 1.1 | - | - | 1 | 7 | 3 |  |" in lines
    assert (lines[0], lines[-1]) == ("before", "after")
    assert "old" not in lines


def test_filling_twice_changes_nothing(tool: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "val.json").write_text(report(row("distance", "low", value=1.5)))
    once = tool.filled(PAGE, tmp_path)
    assert tool.filled(once, tmp_path) == once


def test_what_was_refused_says_why(tool: ModuleType, tmp_path: Path) -> None:
    refused = {"status": "refused", "seconds": 0.0, "reason": "no evaluator was given"}
    (tmp_path / "val.json").write_text(json.dumps({"sections": {"control": refused}}))
    assert "Not measured: no evaluator was given" in tool.filled(PAGE, tmp_path)


def test_a_score_within_a_sentence(tool: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "val.json").write_text(report(row("distance, all", "low", value=1.5, low=1.25, high=2.0)))
    page = "It is <!-- score val.json control distance, all -->old<!-- /score --> now."
    once = tool.filled(page, tmp_path)
    assert once == "It is <!-- score val.json control distance, all -->1.5 (1.25 to 2)<!-- /score --> now."
    assert tool.filled(once, tmp_path) == once


def test_a_score_that_is_not_there_is_an_error(tool: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "val.json").write_text(report(row("distance", "low", value=1.5)))
    with pytest.raises(KeyError, match="agreement"):
        tool.filled("<!-- score val.json control agreement -->0<!-- /score -->", tmp_path)
