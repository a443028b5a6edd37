"""What is compared: where the crops of each arm come from, and which arm its effect is measured against."""

from __future__ import annotations

from dataclasses import dataclass

from msdm_engine.errors import RequestError, nearest
from msdm_train.evaluation.usefulness.synthetic import CellData
from msdm_train.segmentation.config import Augmentation
from msdm_train.segmentation.sources import Mixture, PackFields, Samples, Source


@dataclass(frozen=True)
class Arm:
    """One way to train a segmenter. Steps, batch, crops and network are those of every other arm.

    Args:
        name: as in files.
        title: in words.
        augmentation: of all its crops, real and synthetic alike.
        sets: synthetic sets that its crops come from, in equal parts: ``columnar``, ``others``.
        with_real: whether real crops are among them.
        bases: arms that it is compared with; the first is what it adds to.
    """

    name: str
    title: str
    augmentation: Augmentation
    sets: tuple[str, ...] = ()
    with_real: bool = True
    bases: tuple[str, ...] = ()


#: Synthetic pairs come on top of classical augmentation, which costs nothing and is what they must beat.
ARMS = (
    Arm("real", "real tiles", "none"),
    Arm("classical", "real + classical augmentation", "classical", bases=("real",)),
    Arm(
        "columnar",
        "real + classical + synthetic columnar",
        "classical",
        sets=("columnar",),
        bases=("classical", "others", "real"),
    ),
    Arm("others", "real + classical + as many synthetic others", "classical", sets=("others",), bases=("classical",)),
    Arm(
        "synthetic",
        "synthetic only (columnar and others), classical",
        "classical",
        sets=("columnar", "others"),
        with_real=False,
        bases=("classical",),
    ),
)


def arm_named(name: str) -> Arm:
    """The arm of that name."""
    for arm in ARMS:
        if arm.name == name:
            return arm
    raise RequestError(f"unknown arm '{name}'", note=nearest(name, [arm.name for arm in ARMS]))


def source_of(arm: Arm, data: CellData, synthetic_share: float) -> Source:
    """Where the crops of an arm come from: fields of the cell's sub-pack, and its synthetic sets.

    Args:
        synthetic_share: of the crops of an arm that mixes.
    """
    real = PackFields(data.real)
    sets: list[Source] = [Samples(data.sets[name], f"synthetic {name}") for name in arm.sets]
    if not sets:
        return real
    share = (synthetic_share if arm.with_real else 1.0) / len(sets)
    parts = [(synthetic, share) for synthetic in sets]
    return Mixture([(real, 1 - synthetic_share), *parts] if arm.with_real else parts)
