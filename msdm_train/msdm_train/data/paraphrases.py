"""Wordings that a pathologist might use, written by hand and never trained on.

Each key is a phrase of the data set's descriptions; its wordings are none of :data:`msdm_train.data.text.SYNONYMS`.
"""

from __future__ import annotations

HELD_OUT: dict[str, tuple[str, ...]] = {
    "columnar epithelium with palisading elongated nuclei": (
        "tall columnar epithelial cells, nuclei elongated and in palisades",
        "glandular epithelium with pseudostratified cigar-shaped nuclei",
    ),
    "spindle-shaped stromal nuclei": ("fibroblast-like stroma with slender nuclei", "elongated mesenchymal cells"),
    "round and oval nuclei": ("ovoid to rounded nuclei", "isomorphic round cell population"),
    "violet nuclear stain": ("nuclei stained violet", "nuclear colour violet"),
    "purple nuclear stain": ("nuclei stained purple", "nuclear colour purple"),
    "lilac background": ("background of a lilac tone", "lilac stroma and cytoplasm"),
    "white background": ("background is white", "unstained white surroundings"),
    "pink background": ("background of a pink tone", "eosinophilic pink surroundings"),
    "large nuclei": ("nuclear enlargement, large", "macronuclei, large"),
    "small nuclei": ("nuclei of small size", "small compact nuclei"),
}


def held_out_wordings(description: str) -> list[str]:
    """A description with its clauses exchanged for wordings that training never saw; empty where it has none."""
    clauses = [clause.strip() for clause in description.split(";") if clause.strip()]
    if not any(clause in HELD_OUT for clause in clauses):
        return []
    wordings = [[HELD_OUT.get(clause, (clause, clause))[i] for clause in clauses] for i in range(2)]
    return ["; ".join(wordings[0]), "; ".join(reversed(wordings[1]))]
