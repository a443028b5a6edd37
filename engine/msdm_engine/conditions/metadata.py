"""Metadata condition: assay, indication and free description as the text that BERT reads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from msdm_engine.errors import BundleError, RequestError


@dataclass(frozen=True)
class Metadata:
    """What is known of a picture; every field may be absent (empty).

    Args:
        assay: stain or assay, such as "haematoxylin and eosin".
        indication: organ or disease, such as "colorectal carcinoma".
        description: free text on the appearance.
    """

    assay: str = ""
    indication: str = ""
    description: str = ""

    def text(self) -> str:
        """The one text that is encoded; empty when nothing is known."""
        parts = [
            f"assay: {self.assay.strip()}" if self.assay.strip() else "",
            f"indication: {self.indication.strip()}" if self.indication.strip() else "",
            self.description.strip(),
        ]
        return "; ".join(part for part in parts if part)


class TextTokenizer:
    """A WordPiece tokenizer."""

    def __init__(self, source: Path | bytes, length: int) -> None:
        """Reads the tokenizer.

        Args:
            source: a ``tokenizer.json``, or its bytes where they were verified already.
            length: T, the number of tokens that the graphs take.

        Raises:
            BundleError: it cannot be read.
        """
        try:
            data = source if isinstance(source, bytes) else source.read_bytes()
            self._tokenizer = Tokenizer.from_buffer(data)
        except Exception as error:  # tokenizers raises bare Exception for every cause
            what = "of the bundle" if isinstance(source, bytes) else str(source)
            raise BundleError(f"tokenizer {what} cannot be read: {error}", hint="export the bundle again") from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.length = length

    def encode(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """Token ids and mask of one text.

        Returns:
            ([T] int64 ids, [T] float32 mask); an empty text has an all-zero mask: no metadata given.

        Raises:
            RequestError: the text needs more than T tokens.
        """
        ids = np.zeros(self.length, np.int64)
        mask = np.zeros(self.length, np.float32)
        if not text:
            return ids, mask
        try:
            text.encode()  # half a surrogate pair, from a terminal of another encoding
        except UnicodeEncodeError as error:
            raise RequestError(f"metadata text {text[:60]!r} is not Unicode text", note=str(error)) from error
        encoded = self._tokenizer.encode(text).ids
        if len(encoded) > self.length:
            raise RequestError(
                f"metadata text of {len(encoded)} tokens is too long: '{text[:60]}...'",
                note=f"this bundle takes at most {self.length} tokens",
                hint="shorten the description",
            )
        ids[: len(encoded)] = encoded
        mask[: len(encoded)] = 1.0
        return ids, mask

    def unknown(self, text: str) -> list[str]:
        """The words of a text that the vocabulary cannot spell, in their order."""
        encoded = self._tokenizer.encode(text)
        word = getattr(self._tokenizer.model, "unk_token", None)
        pairs = zip(encoded.tokens, encoded.offsets, strict=True)
        return [text[begin:end] for token, (begin, end) in pairs if token == word]
