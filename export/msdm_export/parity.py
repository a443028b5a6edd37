"""Parity of exported graphs with PyTorch: the same inputs through both, the largest difference kept."""

from __future__ import annotations

from typing import Any

import numpy as np

from msdm_engine.sampling.schedule import dpmpp_2m_table, karras_sigmas
from msdm_export.conditions import SIZES, Conditions, walk
from msdm_export.reference import run_of_model
from msdm_export.sessions import run_session, session_from_model
from msdm_train.model.msdm import MSDM

STEPS = 6


def measure_parity(model: MSDM, graphs: dict[str, bytes], conditions: Conditions) -> dict[str, dict[str, Any]]:
    """Largest absolute difference of each output of each graph between PyTorch and ONNX Runtime (CPU).

    Each graph gets PyTorch's inputs, along PyTorch's trajectory.

    Returns:
        for each graph: ``outputs`` (name -> largest absolute difference), ``cases``, ``inputs`` (their source).
    """
    sessions = {name: session_from_model(graph) for name, graph in graphs.items()}
    worst: dict[str, dict[str, float]] = {name: {} for name in graphs}
    run, table = run_of_model(model), dpmpp_2m_table(karras_sigmas(STEPS))
    for case in conditions.cases():
        for visit in walk(run, case, table):
            found = run_session(sessions[visit.graph], visit.inputs)
            kept = worst[visit.graph]
            for output, expected in visit.outputs.items():
                kept[output] = max(kept.get(output, 0.0), float(np.abs(found[output] - expected).max()))
    return {
        name: {
            "outputs": errors,
            "cases": [str(size) for size in SIZES],
            "inputs": conditions.source,
            "against": "PyTorch float32, CPU",
        }
        for name, errors in worst.items()
    }
