"""Do paraphrases of a description lie nearer to it than descriptions of other tissues, in the text encoder's space?

A text is its token states, averaged over its tokens, as the condition pools them; states are centred on the mean of
the descriptions, because all texts share a large common part. Similarity is the cosine. A triplet is a description, a
paraphrase of it and another description of the data; it is right if the paraphrase is nearer. The margin is the
similarity to the paraphrase less that to the nearest other description, averaged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from msdm_engine.conditions.metadata import Metadata, TextTokenizer
from msdm_engine.errors import InputError
from msdm_train.data.pack import Pack
from msdm_train.data.paraphrases import held_out_wordings
from msdm_train.data.reader import Region
from msdm_train.data.text import vary
from msdm_train.model.msdm import MSDM
from msdm_train.training.start import read_init

VARIED = 20


def paraphrase_report(source: Path, pack_path: Path, seed: int = 0) -> dict[str, Any]:
    """Measures a checkpoint or bundle.

    Returns:
        for ``trained`` wordings (drawn as training draws them) and ``held_out`` ones (by hand): number of descriptions
        and triplets, ``right`` (share in [0, 1]) and ``margin`` (difference of cosines).

    Raises:
        InputError, BundleError: source or pack cannot be used, or the train split has fewer than two descriptions.
    """
    info, weights, tokenizer = read_init(source)
    model = MSDM(info.model).eval()
    model.load_state_dict(weights)
    reader = TextTokenizer(tokenizer.encode(), info.model.text_tokens)
    regions = _regions(Pack(pack_path))
    texts = [_text(region, region.description) for region in regions]

    def embed(given: Sequence[str]) -> np.ndarray:
        return pooled_states(model, reader, given)

    rng = np.random.default_rng(seed)
    varied = [[vary(region.description, rng) for _ in range(VARIED)] for region in regions]
    by_hand = [held_out_wordings(region.description) for region in regions]
    parts = {"trained": varied, "held_out": by_hand}
    found: dict[str, Any] = {"steps": info.step, "descriptions": len(regions)}
    for name, wordings in parts.items():
        said = [[_text(region, w) for w in words] for region, words in zip(regions, wordings, strict=True)]
        found[name] = triplets(embed, texts, said)
    return found


def triplets(
    embed: Callable[[Sequence[str]], np.ndarray], texts: Sequence[str], wordings: Sequence[Sequence[str]]
) -> dict[str, Any]:
    """Share of right triplets and margin; see the module's docstring.

    Args:
        embed: texts -> [n, D].
        texts: the descriptions.
        wordings: paraphrases of each; one that equals its description is left out.
    """
    anchors = embed(texts)
    centre = anchors.mean(0)
    anchors = _unit(anchors - centre)
    right, margins = [], []
    for i, words in enumerate(wordings):
        others = np.delete(anchors, i, 0) @ anchors[i]
        chosen = [word for word in words if word != texts[i]]
        if not chosen:
            continue
        near = _unit(embed(chosen) - centre) @ anchors[i]
        right.extend((near[:, None] > others[None]).ravel())
        margins.extend(near - others.max())
    if not right:
        return {"triplets": 0, "right": None, "margin": None}
    return {"triplets": len(right), "right": float(np.mean(right)), "margin": float(np.mean(margins))}


@torch.no_grad()
def pooled_states(model: MSDM, tokenizer: TextTokenizer, texts: Sequence[str]) -> np.ndarray:
    """[n, hidden] float64: token states averaged over the tokens of each text."""
    encoded = [tokenizer.encode(text) for text in texts]
    ids, mask = (torch.as_tensor(np.stack(part)) for part in zip(*encoded, strict=True))
    states = model.text_encoder(ids, mask)
    return ((states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)).double().numpy()


def _regions(pack: Pack) -> list[Region]:
    """One train region for each description, in the order of the alphabet."""
    found = {r.description: r for field in pack.split("train") for r in field.regions if r.description}
    if len(found) < 2:
        raise InputError(
            f"the train split of {pack.info.name} has {len(found)} descriptions", note="triplets need at least two"
        )
    return [found[text] for text in sorted(found)]


def _text(region: Region, description: str) -> str:
    return Metadata(region.assay, region.indication, description).text()


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True).clip(1e-12)
