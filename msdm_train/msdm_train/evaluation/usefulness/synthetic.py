"""The generator of a cell and its synthetic sets. Everything here is read from the cell's sub-pack."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

from msdm_train.data.crops import group_of
from msdm_train.data.pack import Pack
from msdm_train.evaluation.samples import Sample, load_samples, save_samples
from msdm_train.evaluation.usefulness.config import GeneratorConfig, key_of
from msdm_train.evaluation.usefulness.folds import COLUMNAR, Cell
from msdm_train.evaluation.usefulness.morphology import Morphology, fit_morphologies
from msdm_train.evaluation.usefulness.sampling import pairs_from_checkpoint
from msdm_train.evaluation.usefulness.subpack import open_subpack
from msdm_train.training.fit import fit

#: Synthetic sets of a cell, equal in number: columnar layouts, and the other kinds of the cell in turn.
SETS = (COLUMNAR, "others")

#: Seed of the layouts, the conditions and the noise of all synthetic pairs.
SEED = 1

#: Pairs sampled together.
BATCH = 8


@dataclass(frozen=True)
class CellData:
    """All that the segmenters of a cell are trained on.

    Args:
        real: the sub-pack; its split train are the cell's training fields, and it has no other.
        sets: generated pairs by :data:`SETS`.
    """

    real: Pack
    sets: dict[str, tuple[Sample, ...]]


def prepare_cell(pack: Pack, cell: Cell, config: GeneratorConfig, out: Path, say: Callable[[str], None]) -> CellData:
    """Writes the sub-pack, trains the generator and generates both sets; what is there already is used.

    Args:
        out: folder of the cell. An interrupted training of the generator goes on there.

    Raises:
        InputError: see :func:`~msdm_train.evaluation.usefulness.morphology.fit_morphologies`.
        RequestError: ``out`` holds a generator that was trained otherwise.
    """
    real = open_subpack(pack, cell.train, out / "fields.safetensors")
    key = key_of(config, cell.train, SEED)
    found = {name: load_samples(out / f"{name}.npz", key) for name in SETS}
    if None in found.values():
        say(f"{cell.name}: training the generator, {config.fit.steps} steps on {len(cell.train)} fields")
        checkpoint = fit(real.path, out / "generator", config.fit, model=config.model)
        say(f"{cell.name}: fitting layouts and generating {len(SETS)} x {config.pairs} pairs")
        morphologies = fit_morphologies(real, config.side_px)
        for name in SETS:
            kinds = [fitted for kind, fitted in morphologies.items() if (kind == COLUMNAR) == (name == COLUMNAR)]
            found[name] = generate(checkpoint, kinds, config)
            save_samples(out / f"{name}.npz", found[name] or [], key)
    return CellData(real, {name: tuple(samples or ()) for name, samples in found.items()})


def generate(checkpoint: Path, morphologies: Sequence[Morphology], config: GeneratorConfig) -> list[Sample]:
    """``config.pairs`` pairs, each kind of layout in turn; a sample's field is the one whose window it follows."""
    kinds = list(islice(cycle(morphologies), config.pairs))
    requests = [kind.request(index, SEED) for index, kind in enumerate(kinds)]
    pairs = pairs_from_checkpoint(checkpoint, requests, config.table(), batch=BATCH)
    samples = []
    for kind, pair in zip(kinds, pairs, strict=True):
        number = kind.followed(pair.request.index, SEED)
        crop = kind.crops[number]
        samples.append(Sample(pair.image, pair.instances, crop.field, group_of(crop), number, SEED))
    return samples
