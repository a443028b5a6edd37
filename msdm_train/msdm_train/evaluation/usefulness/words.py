"""The protocol as a report shows it."""

from __future__ import annotations

from msdm_train.evaluation.statistics import EXPLORATORY_BELOW
from msdm_train.evaluation.usefulness.config import Protocol


def protocol_in_words(protocol: Protocol) -> str:
    """Sentences."""
    generator, segmenter, fit = protocol.generator, protocol.segmenter, protocol.generator.fit
    shares = " and ".join(f"{share:.0%}" for share in protocol.fractions)
    return (
        f"{protocol.folds}-fold cross-validation over the fields of train and val, never test; each fold holds out "
        f"columnar fields. {shares} of a fold's training fields are used, at least one columnar and one other. For "
        f"each fold and share a generator ('{generator.model}', {fit.steps} steps of {fit.batch} crops, from nothing) "
        "is trained on exactly the fields whose labels the segmenters may see; its masks are layouts fitted to those "
        f"fields, their outlines included. It makes {generator.pairs} columnar pairs and as many others of "
        f"{generator.side_px} px. All arms: network '{segmenter.architecture}', {segmenter.steps} steps of "
        f"{segmenter.batch} crops of {segmenter.crop_px} px; arms that mix draw {protocol.synthetic_share:.0%} of "
        "their crops from synthetic pairs; all but 'real' use classical augmentation (turns, flips, scale, stain). "
        "Scored on whole held-out fields, nuclei of columnar regions and of others apart. Effects are differences to "
        f"the base arm paired by field and seed (seeds: {protocol.seeds}); intervals resample fields, then seeds; "
        f"effects from under {EXPLORATORY_BELOW} fields are exploratory."
    )
