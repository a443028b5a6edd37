from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from msdm_engine.bundle.manifest import Manifest
from msdm_engine.bundle.reader import Bundle
from msdm_engine.errors import InputError
from msdm_train.data.pack import Pack
from msdm_train.evaluation.networks import NoEvaluator, check_evaluator, open_evaluator

SHA = "ab" * 32


def identity(**source: Any) -> dict[str, str]:
    return {"architecture": "plain", "source": json.dumps(source), "sha256": SHA}


@pytest.fixture
def manifest(bundle_folder: Path) -> Manifest:
    return Bundle.open(bundle_folder).manifest


def test_an_evaluator_saw_real_fields_of_other_splits_only(opened_pack: Pack, manifest: Manifest) -> None:
    check_evaluator(identity(pack="drawn", fields=["t1", "t2"]), opened_pack, "val", manifest)
    check_evaluator(identity(pack="another", fields=["v"]), opened_pack, "val", manifest)  # of that name elsewhere
    with pytest.raises(InputError, match=r"trained on field\(s\) v of the split 'val'"):
        check_evaluator(identity(pack="drawn", fields=["t1", "v"]), opened_pack, "val", manifest)
    sources: tuple[dict[str, Any], ...] = (
        {"samples": "made", "pictures": 4},
        {"mixture": []},
        {"folder": "pairs", "pictures": 4},
        {},
    )
    for source in sources:
        with pytest.raises(InputError, match="was not trained on real fields alone"):
            check_evaluator(identity(**source), opened_pack, "val", manifest)


def test_the_evaluator_is_neither_the_critic_nor_of_its_architecture(opened_pack: Pack, manifest: Manifest) -> None:
    judge = identity(pack="drawn", fields=["t1"])
    another = {"sha256": "cd" * 32, "architecture": "lite0"}
    check_evaluator(judge, opened_pack, "val", replace(manifest, critic=another))
    for same in ({"sha256": SHA}, {"architecture": "plain"}):
        with pytest.raises(InputError, match="the evaluator is the critic of bundle painter, or of its architecture"):
            check_evaluator(judge, opened_pack, "val", replace(manifest, critic=another | same))


def test_without_an_evaluator_every_question_is_refused(opened_pack: Pack, manifest: Manifest) -> None:
    judge = open_evaluator(None, opened_pack, "val", manifest)
    assert isinstance(judge, NoEvaluator)
    with pytest.raises(InputError, match="no evaluator was given"):
        judge([])


def test_a_folder_that_is_no_segmenter_is_refused(opened_pack: Pack, manifest: Manifest, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        open_evaluator(tmp_path, opened_pack, "val", manifest)
