"""Warns when a request leaves the ranges that a bundle was calibrated on: `msdm-engine sample --check-ranges`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

import numpy as np

from msdm_engine.backends import Backend
from msdm_engine.bundle.reader import Bundle
from msdm_engine.conditions.metadata import TextTokenizer
from msdm_engine.errors import BundleError
from msdm_engine.log import Log
from msdm_engine.pairs import Pair, PairRequest
from msdm_engine.requests.condition_ranges import Calibrated, Departure, condition_values, departures

#: Share of a calibrated span by which an activation may leave it on either side: the extrema of some hundred pairs
#: are exceeded by chance. Conditions may not: they are what was asked for.
MARGIN = 0.25

#: Takes a departure that is the first of its kind, and the number of its pair; None: an activation of a batch.
Warn = Callable[[Departure, int | None], None]


def calibrated_ranges(bundle: Bundle) -> Calibrated:
    """The ranges that the bundle holds.

    Raises:
        BundleError: it holds none, or they were measured on other graphs than it has now.
    """
    manifest = bundle.manifest
    make = f"msdm-calibrate ranges {bundle.folder} --data D --out FOLDER --store"
    if manifest.calibrated is None:
        raise BundleError(f"bundle {manifest.name} holds no calibrated ranges to check against", hint=make)
    for name, spec in manifest.graphs.items():
        if manifest.calibrated.graphs.get(name) != manifest.files[spec.file].sha256:
            raise BundleError(
                f"the calibrated ranges of bundle {manifest.name} are stale: '{name}' is another graph", hint=make
            )
    return manifest.calibrated


class RangeCheck:
    """Finds departures from the calibrated ranges of a bundle, and warns once for each name and side.

    Open the engine with ``watch=check.watched``, and the outputs of its graphs are checked too.

    Raises:
        BundleError: of :func:`calibrated_ranges`.
    """

    def __init__(self, bundle: Bundle, warn: Warn) -> None:
        self._calibrated = calibrated_ranges(bundle)
        self._tokenizer = TextTokenizer(bundle.tokenizer, bundle.manifest.text_tokens)
        self._warn = warn
        self._warned: set[tuple[str, bool]] = set()
        self._found: dict[int, tuple[str, ...]] = {}

    def watched(self, backend: Backend) -> Backend:
        """A backend that shows this check what its graphs give out."""
        return _Watched(backend, self)

    @staticmethod
    def logged(bundle: Bundle, log: Log) -> RangeCheck:
        """A check whose warnings go to a command's log, each with name, value and range."""

        def warn(departure: Departure, pair: int | None) -> None:
            where = "in a batch" if pair is None else f"pair {pair}"
            text = f"{where}: {departure.text()}; told once"
            values = {"name": departure.name, "value": departure.value, "low": departure.low, "high": departure.high}
            log.warning("outside_ranges", text, pair=pair, **values)

        return RangeCheck(bundle, warn)

    def seen(self, requests: Iterable[PairRequest]) -> Iterator[PairRequest]:
        """The requests, each checked before it is handed on."""
        for request in requests:
            found = departures(condition_values(request, self._tokenizer), self._calibrated.conditions)
            self._tell(found, request.index)
            self._found[request.index] = tuple(departure.text() for departure in found)
            yield request

    def marked(self, pair: Pair) -> Pair:
        """A pair with what its request leaves, in words, for its record."""
        return replace(pair, outside_ranges=self._found.pop(pair.request.index, ()))

    def watch(self, graph: str, outputs: Mapping[str, np.ndarray]) -> None:
        """Warns of a graph's outputs outside their calibrated range and :data:`MARGIN`."""
        for tensor, values in outputs.items():
            name = f"{graph}/{tensor}"
            if name not in self._calibrated.activations or not values.size:
                continue
            low, high = self._calibrated.activations[name]
            spare = MARGIN * (high - low)
            ends = (float(values.min()), float(values.max()))
            outside = [end for end in ends if not low - spare <= end <= high + spare]
            self._tell([Departure(name, end, low, high) for end in outside], None)

    def _tell(self, found: Iterable[Departure], pair: int | None) -> None:
        for departure in found:
            kind = departure.name, departure.value < departure.low
            if kind not in self._warned:
                self._warned.add(kind)
                self._warn(departure, pair)


class _Watched:
    """A backend whose outputs a check sees."""

    def __init__(self, backend: Backend, check: RangeCheck) -> None:
        self.identity, self._backend, self._check = backend.identity, backend, check

    def run(self, graph: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        outputs = self._backend.run(graph, inputs)
        self._check.watch(graph, outputs)
        return outputs

    def close(self) -> None:
        self._backend.close()
