"""New morphologies for a cell, drawn from the nuclei of its own training fields.

The outline bank and the layout statistics that ship with the engine come from all train fields of the reference
data, so some would be held out here. Both are therefore fitted anew to windows of the cell's sub-pack. What stays
shared are the layouts' own rules (how a palisade is built), which hold no shape of any field.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import numpy as np

from msdm_engine.errors import InputError, MsdmError, RequestError
from msdm_engine.layouts import FittedLayout, OutlineBank, draw_layout, fit_layout
from msdm_engine.pairs import PairRequest
from msdm_train.data.crops import Crop, request_of, windows
from msdm_train.data.pack import Pack
from msdm_train.outlines import fit_outline_bank

#: Kinds of layout by the tag ``architecture``, in the order in which sets draw them.
KINDS = ("columnar", "round", "spindle")

#: A layout that finds no room is drawn again with another seed, at most this often.
MAX_DRAWS = 20
SEED_STRIDE = 1_000_003

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Morphology:
    """A layout fitted to the windows of one kind of a cell, and the bank it draws outlines from.

    Args:
        crops: the windows with nuclei, in the order of ``fitted.maps``.
    """

    kind: str
    fitted: FittedLayout
    bank: OutlineBank
    crops: tuple[Crop, ...]

    def followed(self, index: int, seed: int) -> int:
        """Number of the window that layout ``index`` of a set takes its numbers from."""
        seen = self.fitted.followed(seed, index)
        return next(i for i, given in enumerate(self.fitted.maps) if given is seen)

    def request(self, index: int, seed: int) -> PairRequest:
        """Asks for one pair: a new layout, with colour and description of the window whose numbers it follows.

        Raises:
            RequestError: no layout found room.
        """
        crop = self.crops[self.followed(index, seed)]
        asked = request_of(crop, index, seed)
        origin = f"layout {self.kind} fitted to the cell's fields, follows a window of field {crop.field}"
        return replace(asked, instances=self._drawn(index, seed), morphology=origin)

    def _drawn(self, index: int, seed: int) -> np.ndarray:
        request = self.fitted.request(seed, index)
        for attempt in range(MAX_DRAWS - 1):
            try:
                return draw_layout(replace(request, seed=seed + attempt * SEED_STRIDE), self.bank)
            except RequestError as error:
                log.info("%s", error)
        return draw_layout(replace(request, seed=seed + MAX_DRAWS * SEED_STRIDE), self.bank)


def fit_morphologies(pack: Pack, side_px: int) -> dict[str, Morphology]:
    """Fits each kind of layout that the train fields of a pack show; reads nothing else.

    A kind whose windows hold too few whole nuclei to fit is left out, which the log says.

    Args:
        side_px: side of the windows and of what is drawn.

    Raises:
        InputError: no columnar layout can be fitted, or no other one.
    """
    crops = [crop for crop in windows(pack, "train", side_px) if crop.instances.any()]
    regions = [
        (pack.window(field.id, r.y0, r.x0, r.y1, r.x1)[1].astype(np.int32), r.tags.get("architecture", ""))
        for field in pack.split("train")
        for r in field.regions
    ]
    bank = fit_outline_bank(regions, licence=pack.info.licence, source=f"{pack.info.name}, the cell's fields")
    found = {}
    for kind in KINDS:
        own = tuple(crop for crop in crops if crop.region.tags.get("architecture") == kind)
        if not own or kind not in bank.coefficients:
            continue
        try:
            fitted = fit_layout([crop.instances for crop in own], kind, bank)
        except MsdmError as error:
            log.warning("no layout %s in %s: %s", kind, pack.path.name, error)
            continue
        found[kind] = Morphology(kind, fitted, bank, own)
    if KINDS[0] not in found or len(found) < 2:
        raise InputError(
            f"layouts could be fitted to the kinds {sorted(found)} of {pack.path.name}",
            note="needed: columnar and one of round and spindle, each with whole nuclei",
        )
    return found
