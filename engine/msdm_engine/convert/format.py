"""The contract of the formats: what each one is given, and what it says of itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from msdm_engine.convert.source import Provenance, SetPair, SetPairs

#: Class of the nuclei where a format has no classes of its own: sets do not say more of a nucleus.
NUCLEUS = "nucleus"


@dataclass(frozen=True)
class Conversion:
    """What a format writes, and where.

    Args:
        pairs: the pairs of the set in the order of their numbers; may be gone through several times.
        provenance: what every format carries on.
        folder: an empty folder, which gets its final name when all is written.
        nucleus_class: class of all nuclei: a class of the format where it has its own, else any name.
        progress: show a progress bar.
    """

    pairs: SetPairs
    provenance: Provenance
    folder: Path
    nucleus_class: str
    progress: bool = False

    def each(self) -> Iterator[SetPair]:
        """The pairs, with a progress bar if one is wanted."""
        yield from tqdm(self.pairs, unit="pair", disable=not self.progress)


@dataclass(frozen=True)
class Format:
    """One format.

    Args:
        write: writes a conversion into its folder; may let OSError escape, and holds a few pairs in memory at most.
        read_with: the library call or tool that reads it, for the user.
        classes: the classes that the format has, in its own order; empty where any name is legal.
    """

    write: Callable[[Conversion], None]
    read_with: str
    classes: tuple[str, ...] = ()
