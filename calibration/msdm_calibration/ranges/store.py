"""Recording in a bundle what it was calibrated on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from msdm_calibration.ranges.document import ActivationRange, RangeReport
from msdm_engine.bundle.folder import add_to_bundle
from msdm_engine.bundle.manifest import Manifest
from msdm_engine.contract import CONDITIONER, DENOISER
from msdm_engine.errors import BundleError
from msdm_engine.requests.condition_ranges import Calibrated, Ends

#: Outputs that summarise the network: all that the conditioner hands to the denoiser, and the denoised estimate.
_SUMMARY = {CONDITIONER: None, DENOISER: ("denoised",)}


def store(folder: Path, report: RangeReport) -> Manifest:
    """Writes the ranges of conditions and of a few activations into the bundle's manifest.

    Raises:
        BundleError: the report is of other graphs.
        OutputError: the bundle cannot be written.
    """

    def change(manifest: Manifest) -> Manifest:
        graphs = {name: manifest.files[spec.file].sha256 for name, spec in manifest.graphs.items()}
        if graphs != report.run["graphs"]:
            raise BundleError(
                f"the ranges are of bundle {report.run['bundle']} with other graphs than {folder} has",
                hint="measure this bundle: msdm-calibrate ranges BUNDLE --data D --out FOLDER --store",
            )
        run, activations = report.run, _activations(report)
        calibrated = Calibrated(str(run["data"]["name"]), int(run["windows"]), graphs, report.conditions, activations)
        return replace(manifest, calibrated=calibrated)

    return add_to_bundle(folder, {}, change)


def _activations(report: RangeReport) -> dict[str, Ends]:
    found: dict[str, Ends] = {}
    for graph, wanted in _SUMMARY.items():
        entries = {entry.activation.tensor: entry for entry in report.graphs[graph]}
        outputs = report.run["outputs"][graph]
        for tensor in outputs if wanted is None else wanted:
            entry = entries[tensor]
            entry = entries[entry.activation.same_values_as] if not entry.levels else entry
            found[f"{graph}/{tensor}"] = _ends(entry)
    return found


def _ends(entry: ActivationRange) -> Ends:
    return min(level.low for level in entry.levels), max(level.high for level in entry.levels)
