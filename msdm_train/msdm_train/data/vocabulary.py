"""The WordPiece vocabulary of a model that trains its own small BERT."""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Iterable
from importlib import resources
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from msdm_engine.errors import RequestError
from msdm_train.data.pack import Pack
from msdm_train.data.text import SYNONYMS

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
LONGEST_PIECE = 5


def tokenizer_json(pack: Pack, size: int) -> str:
    """The text of ``tokenizer.json``: whole words for the field's terms, pieces down to letters for the rest.

    Entries are, until the vocabulary is full: letters, the words of the field, those of the train descriptions
    (the most frequent first), and pieces that are common in all these words. Equal packs give equal texts; the
    trainer of ``tokenizers`` breaks ties at random, so that no two of its vocabularies agree.

    Args:
        size: most entries of the vocabulary.

    Raises:
        RequestError: the letters and the words of the field alone do not fit.
    """
    terms = resources.files("msdm_train.data").joinpath("vocabulary.txt").read_text().splitlines()
    phrases = [phrase for group in SYNONYMS for phrase in group]
    regions = [region for field in pack.split("train") for region in field.regions]
    described = [text for r in regions for text in (r.description, r.assay, r.indication)]
    normalise, split = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()

    def words(texts: list[str]) -> Counter[str]:
        return Counter(word for text in texts for word, _ in split.pre_tokenize_str(normalise.normalize_str(text)))

    letters = string.ascii_lowercase + string.digits
    of_field, of_data = words([*terms, *phrases]), words(described)
    entries = [*SPECIAL, *string.punctuation, *letters, *(f"##{letter}" for letter in letters), *sorted(of_field)]
    entries = list(dict.fromkeys(entries))
    if len(entries) > size:
        raise RequestError(f"a vocabulary of {size} entries", note=f"at least {len(entries)}")
    entries += sorted(of_data, key=lambda word: (-of_data[word], word)) + _pieces({**of_field, **of_data})
    entries = list(dict.fromkeys(entries))[:size]
    tokenizer = Tokenizer(models.WordPiece({entry: i for i, entry in enumerate(entries)}, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalise, split
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    tokenizer.add_special_tokens(list(SPECIAL))
    return tokenizer.to_str() + "\n"


def _pieces(words: Iterable[str]) -> list[str]:
    """Pieces of two letters and more, those of the most words first, ties in the order of the alphabet."""
    found: Counter[str] = Counter()
    for word in words:
        for start in range(len(word)):
            for length in range(2, LONGEST_PIECE + 1):
                piece = word[start : start + length]
                if len(piece) == length:
                    found[f"##{piece}" if start else piece] += 1
    return sorted(found, key=lambda piece: (-found[piece], piece))


def train_tokenizer(pack: Pack, size: int, path: Path) -> None:
    """Writes :func:`tokenizer_json` to ``path``."""
    path.write_text(tokenizer_json(pack, size))
