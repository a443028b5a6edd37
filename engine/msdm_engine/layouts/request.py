"""What a user asks of a layout: one frozen dataclass, every range checked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from msdm_engine.errors import RequestError, nearest

MIN_SIDE_PX, MAX_SIDE_PX = 64, 4096

#: Instance maps are 16-bit.
MAX_NUCLEI = 65535

KINDS = ("columnar", "round", "spindle", "gland")

#: Median area in px, median aspect ratio and spread of the log area where a request leaves them open.
DEFAULT_AREA_PX: Mapping[str, float] = {"columnar": 300.0, "round": 320.0, "spindle": 350.0, "gland": 300.0}
DEFAULT_ASPECT: Mapping[str, float] = {"columnar": 2.2, "round": 1.4, "spindle": 3.2, "gland": 2.2}
DEFAULT_SPREAD: Mapping[str, float] = {"columnar": 0.42, "round": 0.48, "spindle": 0.5, "gland": 0.42}

#: Largest share of the picture that nuclei may be asked to cover (count x median area). At this limit, over 144 maps
#: each (64 to 320 px, crowding 0, 0.5 and 1, 12 seeds), all found room except 1 of columnar ones at aspect ratio 4
#: and 6 at aspect ratio 8; that is an error when drawn.
MAX_COVERAGE: Mapping[str, float] = {"columnar": 0.42, "round": 0.36, "spindle": 0.30, "gland": 0.38}

#: Largest aspect ratio of a kind, where it is not that of RANGES.
MAX_ASPECT: Mapping[str, float] = {"round": 3.0}

#: Inclusive ranges of the numbers that may be given.
RANGES: Mapping[str, tuple[float, float]] = {
    "height_px": (MIN_SIDE_PX, MAX_SIDE_PX),
    "width_px": (MIN_SIDE_PX, MAX_SIDE_PX),
    "seed": (0, 2**64 - 1),
    "index": (0, 2**64 - 1),
    "count": (1, MAX_NUCLEI),
    "density_per_mpx": (1, 20_000),
    "area_px": (30, 20_000),
    "area_spread": (0, 0.8),
    "aspect_ratio": (1, 8),
    "crowding": (0, 1),
    "rows": (1, 4),
    "stroma": (0, 1),
    "orientation_deg": (-180, 180),
}
WHOLE_NUMBERS = ("height_px", "width_px", "seed", "index", "count", "rows")

#: Options that only some kinds have.
ONLY_FOR: Mapping[str, tuple[str, ...]] = {
    "rows": ("columnar", "gland"),
    "stroma": ("columnar", "gland"),
    "orientation_deg": ("columnar", "spindle"),
}


@dataclass(frozen=True)
class LayoutRequest:
    """One instance map to draw. ``None`` leaves a choice to the kind, or to the random stream where it varies.

    Args:
        kind: a key of :data:`msdm_engine.layouts.LAYOUTS`.
        height_px, width_px: 64 to 4096, any number.
        seed, index: the random stream; picture ``index`` of a set drawn with ``seed``.
        count: nuclei in the map, those cut by the border included. At most one of count and density.
        density_per_mpx: nuclei in a million pixels.
        area_px: median area of the kind's own nuclei (stroma of columnar and gland is smaller).
        area_spread: standard deviation of the log area of the kind's own nuclei. Whole real tiles have 0.2 to 1.
        aspect_ratio: median ratio of the principal axes of the kind's own nuclei.
        crowding: 0 apart, 1 packed and touching. A count that only fits when packed goes before it.
        rows: rows of nuclei in an epithelium; None draws 1 to 3.
        stroma: 0 no nuclei on the basal side, 1 dense.
        orientation_deg: direction of the palisade, or of the spindles' flow, from +x towards +y (downwards).

    Raises:
        RequestError: an unknown kind, a value out of range or of the wrong type, an option that the kind does
            not have, or more nuclei than fit.
    """

    kind: str
    height_px: int
    width_px: int
    seed: int
    index: int = 0
    count: int | None = None
    density_per_mpx: float | None = None
    area_px: float | None = None
    area_spread: float | None = None
    aspect_ratio: float | None = None
    crowding: float = 0.5
    rows: int | None = None
    stroma: float | None = None
    orientation_deg: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise RequestError(f"unknown layout '{self.kind}'", note=nearest(str(self.kind), KINDS))
        for name in RANGES:
            check_number(name, getattr(self, name))
        for name, kinds in ONLY_FOR.items():
            if getattr(self, name) is not None and self.kind not in kinds:
                raise RequestError(f"layout '{self.kind}' has no option {name}", note=f"only: {', '.join(kinds)}")
        self._check_size()
        self._check_fit()

    @classmethod
    def from_options(cls, **options: Any) -> LayoutRequest:
        """A request from named options, as a command line or a file hands them over.

        Raises:
            RequestError: an option is unknown or missing, or see the class.
        """
        legal = [field.name for field in fields(cls)]
        for name in options:
            if name not in legal:
                raise RequestError(f"unknown layout option '{name}'", note=nearest(name, legal))
        missing = {"kind", "height_px", "width_px", "seed"} - set(options)
        if missing:
            raise RequestError(f"layout options lack {', '.join(sorted(missing))}")
        return cls(**options)

    @property
    def median_area_px(self) -> float:
        """The area asked for, or the kind's own."""
        return DEFAULT_AREA_PX[self.kind] if self.area_px is None else float(self.area_px)

    @property
    def median_aspect_ratio(self) -> float:
        """The aspect ratio asked for, or the kind's own."""
        return DEFAULT_ASPECT[self.kind] if self.aspect_ratio is None else float(self.aspect_ratio)

    @property
    def log_area_spread(self) -> float:
        """The spread of the log area asked for, or the kind's own."""
        return DEFAULT_SPREAD[self.kind] if self.area_spread is None else float(self.area_spread)

    @property
    def length_px(self) -> float:
        """Long axis of a nucleus of median area and aspect ratio, as an ellipse."""
        return math.sqrt(4 * self.median_area_px * self.median_aspect_ratio / math.pi)

    @property
    def breadth_px(self) -> float:
        """Short axis of a nucleus of median area and aspect ratio, as an ellipse."""
        return self.length_px / self.median_aspect_ratio

    def count_at(self, coverage: float) -> float:
        """Nuclei in the map, cut ones included, when nuclei of median area cover this share of the tissue.

        A nucleus is in view when its centre is in the map or up to half its width outside.
        """
        width = (self.length_px + self.breadth_px) / 2
        return coverage * (self.height_px + width) * (self.width_px + width) / self.median_area_px

    @property
    def wanted(self) -> int | None:
        """Number of nuclei asked for by count or density, if any was."""
        if self.count is not None:
            return self.count
        if self.density_per_mpx is None:
            return None
        return max(1, round(self.density_per_mpx * self.height_px * self.width_px / 1e6))

    def _check_size(self) -> None:
        side, pixels = min(self.height_px, self.width_px), self.height_px * self.width_px
        most = MAX_ASPECT.get(self.kind, RANGES["aspect_ratio"][1])
        if self.median_aspect_ratio > most:
            raise RequestError(
                f"aspect_ratio is {self.median_aspect_ratio:g} for layout '{self.kind}'",
                note=f"legal: 1 to {most:g}",
                hint="layouts columnar and spindle take more elongated nuclei",
            )
        if self.median_area_px * 8 > pixels or self.length_px > side:
            raise RequestError(
                f"nuclei of {self.median_area_px:g} px and aspect ratio {self.median_aspect_ratio:g} are too large for "
                f"{self.width_px} x {self.height_px} px",
                note=f"legal: up to an eighth of the picture ({pixels / 8:g} px) and {side} px long, these are "
                f"{self.length_px:.0f} px long",
                hint="ask for smaller nuclei or a larger picture",
            )

    def _check_fit(self) -> None:
        if self.count is not None and self.density_per_mpx is not None:
            raise RequestError("count and density_per_mpx are both given", hint="give one of them")
        wanted = self.wanted
        if wanted is None:
            return
        if wanted > MAX_NUCLEI:
            raise RequestError(f"{wanted} nuclei do not fit 16-bit labels", note=f"legal: up to {MAX_NUCLEI} a picture")
        most = max(1, int(self.count_at(MAX_COVERAGE[self.kind])))
        if wanted > most:
            raise RequestError(
                f"{wanted} nuclei of {self.median_area_px:g} px are too many for layout '{self.kind}' at "
                f"{self.width_px} x {self.height_px} px",
                note=f"legal: up to {most}, which cover {MAX_COVERAGE[self.kind]:.0%} of the picture",
                hint="ask for fewer or smaller nuclei, or a larger picture",
            )


def check_number(name: str, value: object) -> None:
    """Raises RequestError unless the value is of the type and in the range of this field of a request."""
    low, high = RANGES[name]
    if value is None and name not in ("height_px", "width_px", "seed", "index", "crowding"):
        return
    kinds = (int,) if name in WHOLE_NUMBERS else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds):
        kind = "a whole number" if name in WHOLE_NUMBERS else "a number"
        raise RequestError(f"{name} is {value!r}", note=f"legal: {kind} from {low:g} to {high:g}")
    if not low <= value <= high:
        raise RequestError(f"{name} is {value}", note=f"legal: {low:g} to {high:g}")
