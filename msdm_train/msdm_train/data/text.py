"""Wordings of a description, so that the text encoder learns meanings rather than ten fixed sentences."""

from __future__ import annotations

import numpy as np

#: phrases of the field that say the same; the first is how the data set writes it
SYNONYMS: tuple[tuple[str, ...], ...] = (
    (
        "columnar epithelium with palisading elongated nuclei",
        "columnar epithelium",
        "columnar cells",
        "palisading nuclei",
        "elongated palisading nuclei",
        "pseudostratified columnar epithelium",
    ),
    ("spindle-shaped stromal nuclei", "spindle cells", "spindle-shaped nuclei", "stromal spindle cells", "stroma"),
    ("round and oval nuclei", "round nuclei", "oval nuclei", "round cells"),
    ("violet nuclear stain", "violet nuclei", "violet stain", "haematoxylin violet"),
    ("purple nuclear stain", "purple nuclei", "purple stain", "haematoxylin purple"),
    ("lilac background", "lilac tissue", "pale violet background"),
    ("white background", "white tissue background", "bright background", "clear background"),
    ("pink background", "pink tissue", "eosin pink background"),
    ("haematoxylin and eosin like stain", "H&E", "hematoxylin and eosin", "haematoxylin and eosin"),
    ("large nuclei", "big nuclei", "enlarged nuclei"),
    ("small nuclei", "little nuclei"),
)


def vary(description: str, rng: np.random.Generator) -> str:
    """A random wording: clauses (split at ';') kept with probability 0.75 and shuffled, phrases exchanged."""
    clauses = [clause.strip() for clause in description.split(";") if clause.strip()]
    kept = [clause for clause in clauses if rng.random() < 0.75] or clauses
    if rng.random() < 0.5:
        kept = [kept[i] for i in rng.permutation(len(kept))]
    text = "; ".join(kept)
    for group in SYNONYMS:
        if group[0] in text and rng.random() < 0.5:
            text = text.replace(group[0], group[rng.integers(len(group))])
    return text
