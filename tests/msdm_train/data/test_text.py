from __future__ import annotations

import numpy as np

from msdm_train.data.text import SYNONYMS, vary

DESCRIPTION = "violet nuclear stain on a lilac background; spindle-shaped stromal nuclei; small nuclei"


def wordings(description: str, n: int = 2000) -> list[str]:
    rng = np.random.default_rng(0)
    return [vary(description, rng) for _ in range(n)]


def test_the_same_generator_gives_the_same_wording() -> None:
    assert wordings(DESCRIPTION, 20) == wordings(DESCRIPTION, 20)


def test_nothing_stays_nothing() -> None:
    assert set(wordings("", 50)) == {""}


def test_one_clause_is_never_lost() -> None:
    assert set(wordings("glands", 50)) == {"glands"}


def test_clauses_are_left_out_shuffled_and_reworded_but_never_invented() -> None:
    legal = set()
    for clause in DESCRIPTION.split("; "):
        variants = [clause]
        for group in SYNONYMS:
            variants += [v.replace(group[0], other) for v in variants if group[0] in v for other in group]
        legal |= set(variants)
    found = wordings(DESCRIPTION)
    clauses = [text.split("; ") for text in found]
    assert all(set(kept) <= legal for kept in clauses)
    assert {len(kept) for kept in clauses} == {1, 2, 3}
    # All three are kept with 0.75^3, or after all were dropped (0.25^3); four standard deviations of 2000 draws.
    share = np.mean([len(kept) == 3 for kept in clauses])
    expected = 0.75**3 + 0.25**3
    assert abs(share - expected) < 4 * np.sqrt(expected * (1 - expected) / len(found))
    assert any(kept[0].endswith("nuclei") and "violet" in kept[-1] for kept in clauses if len(kept) == 3)
    assert len(set(found)) > 50


def test_the_first_phrase_of_a_group_is_how_the_data_writes_it() -> None:
    assert all(len(set(group)) == len(group) > 1 for group in SYNONYMS)
