"""The WordPiece vocabulary of a model that trains its own small BERT."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from tokenizers import BertWordPieceTokenizer

from msdm_train.data.pack import Pack
from msdm_train.data.text import SYNONYMS


def train_tokenizer(pack: Pack, size: int, path: Path) -> None:
    """Writes ``tokenizer.json`` with whole words for the field's terms and pieces down to letters for the rest."""
    terms = resources.files("msdm_train.data").joinpath("vocabulary.txt").read_text().splitlines()
    phrases = [phrase for group in SYNONYMS for phrase in group]
    descriptions = [region.description for field in pack.split("train") for region in field.regions]
    letters = " ".join("abcdefghijklmnopqrstuvwxyz0123456789")
    tokenizer = BertWordPieceTokenizer(lowercase=True)
    corpus = terms * 3 + phrases * 3 + sorted(set(descriptions)) * 3 + [letters, letters.replace(" ", "")] * 3
    tokenizer.train_from_iterator(corpus, vocab_size=size, min_frequency=1, show_progress=False)
    tokenizer.save(str(path))
