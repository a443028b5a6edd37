from __future__ import annotations

from collections.abc import Callable
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from msdm_engine.conditions.metadata import TextTokenizer
from msdm_engine.errors import RequestError
from msdm_train.data.pack import Pack
from msdm_train.data.reader import Field
from msdm_train.data.vocabulary import SPECIAL, tokenizer_json, train_tokenizer


@pytest.fixture(scope="module")
def tokenizer(opened_pack: Pack) -> Tokenizer:
    return Tokenizer.from_str(tokenizer_json(opened_pack, 1024))


def test_equal_packs_give_equal_texts(opened_pack: Pack) -> None:
    assert tokenizer_json(opened_pack, 1024) == tokenizer_json(opened_pack, 1024)


def test_padding_is_zero_and_the_size_is_kept(tokenizer: Tokenizer) -> None:
    # Rows are padded with 0, so 0 has to be a token that no text holds.
    assert [tokenizer.token_to_id(name) for name in SPECIAL] == [0, 1, 2, 3, 4]
    vocabulary = tokenizer.get_vocab()
    assert sorted(vocabulary.values()) == list(range(1024))


def test_terms_of_the_field_are_whole(tokenizer: Tokenizer) -> None:
    terms = resources.files("msdm_train.data").joinpath("vocabulary.txt").read_text().split()
    for term in terms:
        if term.isalpha():
            assert tokenizer.encode(term).tokens == [term.lower()]


def test_other_words_are_split_and_nothing_of_ascii_is_unknown(tokenizer: Tokenizer) -> None:
    printable = "".join(chr(code) for code in range(33, 127))
    assert "[UNK]" not in tokenizer.encode(f"{printable} osteosarcoma x9").tokens
    pieces = tokenizer.encode("osteosarcoma").tokens
    assert len(pieces) > 1
    assert "".join(piece.removeprefix("##") for piece in pieces) == "osteosarcoma"


def test_words_of_train_are_whole_and_those_of_val_are_not_read(
    draw_field: Callable[..., Field], pack_of: Callable[..., Path]
) -> None:
    fields = draw_field("a", "train", description="Zebrafish"), draw_field("b", "val", description="axolotl")
    vocabulary = Tokenizer.from_str(tokenizer_json(Pack(pack_of(*fields)), 1024)).get_vocab()
    assert "zebrafish" in vocabulary
    assert "axolotl" not in vocabulary


def test_a_small_vocabulary(opened_pack: Pack) -> None:
    with pytest.raises(RequestError, match="a vocabulary of 200 entries"):
        tokenizer_json(opened_pack, 200)


def test_the_engine_reads_it(opened_pack: Pack, tmp_path: Path) -> None:
    train_tokenizer(opened_pack, 1024, tmp_path / "t.json")
    ids, mask = TextTokenizer(tmp_path / "t.json", 8).encode("violet nuclei; H&E")
    # violet, nuclei, ;, h, &, e
    np.testing.assert_array_equal(mask, [1] * 6 + [0] * 2)
    assert (ids[:6] > 1).all()
    assert not ids[6:].any()
