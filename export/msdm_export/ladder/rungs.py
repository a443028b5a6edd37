"""The rungs of a bundle's ladder: what runs each, what it is held to, and why a rung is not run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx

from msdm_engine.bundle.plan_spec import QUANTIZED
from msdm_engine.bundle.reader import Bundle, command_that_makes
from msdm_engine.contract import CRITIC, DENOISER, FLOAT32
from msdm_export.conditions import Arrays, Run, Size
from msdm_export.ladder.errors import Tolerance
from msdm_export.ladder.rounded import depths, quantised_depths, rounded
from msdm_export.onnx_export import round_to_half
from msdm_export.plans.source import source_of
from msdm_export.precision.formats import FORMATS, SINGLE, Format
from msdm_export.precision.variants import source_models
from msdm_export.reference import run_of_model
from msdm_export.sessions import run_session, session_from_model
from msdm_train.model.msdm import MSDM
from msdm_train.training.checkpoint import load_model, settled
from msdm_train.training.from_bundle import read_bundle

#: Over u sqrt(L). Half formats: on the reference bundle the largest root mean square was 0.6 of u sqrt(L), at the
#: lowest noise level; other weights may have larger gains. Float32 sums of n products in another order also round n
#: times each, which L does not count.
FACTORS = {FLOAT32: 8.0, "fp16": 2.0, "bf16": 2.0, "int8": 2.0, "fp8": 2.0}

Models = dict[str, onnx.ModelProto]


@dataclass(frozen=True)
class Rung:
    """One rung.

    Args:
        what: what executes where, in words.
        run: None where it cannot be run here; then ``not_run`` says why.
        models: graphs whose tensors have the names of the float32 graphs, to search for the first diverging layer.
        sizes: the only shapes that it runs; None: any.
    """

    name: str
    what: str
    run: Run | None = None
    tolerance: Tolerance | None = None
    models: Models = field(default_factory=dict)
    not_run: str = ""
    sizes: tuple[Size, ...] | None = None


def reference_of(bundle: Bundle, checkpoint: Path | None) -> tuple[Run, str]:
    """PyTorch float32 from a checkpoint, or rebuilt from the bundle's weights; and which of the two, in words.

    A checkpoint's weights are rounded first if the bundle stores them in float16: what that loses is in the manifest
    (``largest_relative_rounding``), and it is no error of a graph. A critic's segmenter is not in the bundle, so its
    reference is its float32 graph, whose parity with PyTorch was measured at export.
    """
    run, what = _pytorch_of(bundle, checkpoint)
    if CRITIC not in bundle.graphs:
        return run, what
    critic = session_from_model(bundle.graphs[CRITIC])

    def with_critic(graph: str, inputs: Arrays) -> Arrays:
        return run_session(critic, inputs) if graph == CRITIC else run(graph, inputs)

    return with_critic, f"{what}; critic: its float32 graph"


def _pytorch_of(bundle: Bundle, checkpoint: Path | None) -> tuple[Run, str]:
    if checkpoint is not None:
        model, info = load_model(settled(checkpoint))
        what = f"PyTorch float32, checkpoint of step {info.step}"
        if bundle.manifest.model.get("weights_stored_as") == "float16":
            round_to_half(model)
            what += ", weights rounded to float16 as the bundle stores them"
        return run_of_model(model.eval()), what
    info, weights, _ = read_bundle(bundle.folder)
    model = MSDM(info.model)
    model.load_state_dict(weights)
    return run_of_model(model.eval()), f"PyTorch float32, rebuilt from the weights of bundle {bundle.manifest.name}"


def rungs_of(bundle: Bundle) -> list[Rung]:
    """All rungs above PyTorch but the plans, in order; those that cannot be run are there and say so."""
    sources = source_models(bundle)
    std = float(np.sqrt(np.mean(np.square(bundle.manifest.model["config"]["state_std"]))))
    rungs = [
        Rung(
            "onnx float32",
            "the float32 graphs on ONNX Runtime, CPU",
            _run_of({name: session_from_model(data) for name, data in bundle.graphs.items()}),
            _tolerance(sources, SINGLE, std),
            sources,
        )
    ]
    for half in FORMATS.values():
        rungs.extend(_half_rungs(bundle, half, std))
    rungs.extend(_quantised_rung(bundle, precision, std) for precision in QUANTIZED)
    return rungs


def _half_rungs(bundle: Bundle, half: Format, std: float) -> list[Rung]:
    emulated = Rung(half.name, "typed graphs, each half tensor rounded, sums in float32 (ONNX Runtime, CPU)")
    if not all(half.name in spec.variants for spec in bundle.manifest.graphs.values()):
        make = f"msdm-export precision {bundle.folder} --to {half.name}"
        return [Rung(emulated.name, emulated.what, not_run=f"not run: the bundle has no {half.name} graphs; {make}")]
    specs = bundle.in_precision(half.name)
    typed = {name: onnx.load_from_string(bundle.contents[spec.file]) for name, spec in specs.items()}
    tolerance = _tolerance(typed, half, std)
    models = {name: rounded(model, half) for name, model in typed.items()}
    runs = _run_of({name: session_from_model(model) for name, model in models.items()})
    found = [Rung(half.name, emulated.what, runs, tolerance, models)]
    served = f"{half.name} on CPU"
    if half.handed_on:
        what = "typed graphs as ONNX Runtime's CPU executes them: stored in half, most arithmetic in float32"
        as_is = _run_of({name: session_from_model(model) for name, model in typed.items()})
        found.append(Rung(served, what, as_is, tolerance, typed))
    else:
        found.append(Rung(served, "typed graphs", not_run=f"not run: ONNX Runtime's CPU has no {half.name} arithmetic"))
    return found


def tolerances_of(rungs: list[Rung]) -> dict[str, Tolerance]:
    """What each precision of the bundle is held to."""
    names = {"onnx float32": FLOAT32}
    return {names.get(rung.name, rung.name): rung.tolerance for rung in rungs if rung.tolerance is not None}


def _quantised_rung(bundle: Bundle, precision: str, std: float) -> Rung:
    """The graphs with Q/DQ nodes as ONNX Runtime's CPU executes them: codes are rounded to, sums are float32.

    The tolerance has the form of the others': one rounding is the root mean square of the relative errors of the
    quantised layers' outputs, which calibration measured for each and wrote into the manifest, and L counts quantised
    layers. The other graphs of the set hold their own rung's rounding, which is far within.
    """
    what = "Q/DQ graphs, codes dequantised, arithmetic in float32 (ONNX Runtime, CPU)"
    if not all(precision in spec.variants for spec in bundle.manifest.graphs.values()):
        make = command_that_makes(precision, bundle.folder)
        return Rung(precision, what, not_run=f"not run: the bundle has no {precision} graphs; {make}")
    specs = bundle.in_precision(precision)
    models = {name: onnx.load_from_string(bundle.contents[spec.file]) for name, spec in specs.items()}
    listed = {name: source_of(bundle, name, precision).quantised for name in models}
    variant = bundle.manifest.graphs[DENOISER].variants[precision]
    errors = [float(entry["relative_error_of_output"]) for entry in variant.details["quantized"]]
    roundoff = float(np.sqrt(np.mean(np.square(errors)))) if errors else SINGLE.roundoff
    counted = {name: quantised_depths(model, listed[name]) for name, model in models.items()}
    run = _run_of({name: session_from_model(model) for name, model in models.items()})
    return Rung(precision, what, run, Tolerance(roundoff, counted, FACTORS[precision], std))


def _run_of(sessions: dict[str, object]) -> Run:
    def run(graph: str, inputs: Arrays) -> Arrays:
        return run_session(sessions[graph], inputs)

    return run


def _tolerance(models: Models, kind: Format, std: float) -> Tolerance:
    return Tolerance(
        kind.roundoff, {name: depths(model, kind) for name, model in models.items()}, FACTORS[kind.name], std
    )
