"""A value that is not finite: found in the last state of a batch, and then looked for step by step.

The rule, on every device: the last state of each batch is looked at once, when it is on the host. A step checks nothing
and waits for nothing. That is enough, because what is not finite stays so: the next state is a linear function of state
and estimate, in which each has a term, and a finite number times infinity, or zero times it, is not finite. Only when
the last state fails is the batch computed again, one graph after the other through ``Backend.run``, and each output is
looked at: that names graph, pair, step and noise level. (A value that is not finite in the conditions and reaches no
picture is no failure.)
"""

from __future__ import annotations

import numpy as np

from msdm_engine.backends import Backend
from msdm_engine.contract import CONDITIONER, CONDITIONER_INPUTS, DENOISER, DENOISER_INPUTS, DENOISER_OUTPUTS
from msdm_engine.errors import MsdmError, NumericsError
from msdm_engine.pipeline.batches import Batch
from msdm_engine.pipeline.checks import check_finite, finite_rows
from msdm_engine.pipeline.conditions import Conditions, write_noise, write_start
from msdm_engine.pipeline.lane import Lane


def check_last_state(batch: Batch, lane: Lane, slot: int, conditions: Conditions, backend: Backend) -> None:
    """Looks at the last state of a batch, which is on the host.

    Raises:
        NumericsError: a value of a pair is not finite; names the first graph and step that gave one, if it gives it
            again.
    """
    finite = finite_rows(lane.slots[slot].final.host.array())
    if finite[: len(batch.requests)].all():
        return
    where = f"in one of {len(lane.setting.rows)} steps"
    try:
        _by_steps(batch, lane, conditions, backend)
        where += ", and not when they were run again"
    except NumericsError:
        raise
    except MsdmError as error:  # memory, say: what is known is said all the same
        where += f", which could not be run again ({error.what})"
    check_finite(DENOISER, finite, batch.requests, where)


def _by_steps(batch: Batch, lane: Lane, conditions: Conditions, backend: Backend) -> None:
    """As :func:`msdm_engine.sampling.sampler.trajectory` computes it; NumericsError where a value is not finite."""
    setting, needs, filled = lane.setting, lane.needs, batch.filled
    context = _context(batch, lane, conditions, backend)
    weights = np.array([[weight] * setting.batch for _, weight in setting.branches], np.float32)
    shape = needs.wanted["zeros"].shape
    x, d = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    write_start(filled, setting.sigma_max, x)
    for row, coefficients in enumerate(setting.rows):
        z, branches = np.zeros(shape, np.float32), setting.branches_of(row)
        if setting.is_noisy(row):
            write_noise(filled, row + 1, z)
        weight = weights if setting.guided[row] else np.ones_like(weights[:1])
        inputs = dict(zip(DENOISER_INPUTS, (x, d, z, np.array(coefficients, np.float32), weight), strict=True))
        outputs = backend.run(DENOISER, inputs | {name: value[:branches] for name, value in context.items()})
        where = f"step {row + 1} of {len(setting.rows)} (noise level {coefficients[0]:.4g})"
        for value in outputs.values():
            check_finite(DENOISER, finite_rows(value), batch.requests, where)
        x, d = (outputs[name] for name in DENOISER_OUTPUTS)


def _context(batch: Batch, lane: Lane, conditions: Conditions, backend: Backend) -> dict[str, np.ndarray]:
    """What the conditioner gives for all branches, [G, B, ...] each."""
    setting, ends = lane.setting, lane.needs.ends[CONDITIONER]
    given = {name: np.zeros(ends[name].shape, ends[name].dtype) for name in CONDITIONER_INPUTS}
    conditions.write(batch.filled, setting.own_branches, given)
    context = backend.run(CONDITIONER, given)
    for value in context.values():
        check_finite(CONDITIONER, finite_rows(value), batch.filled * len(setting.own_branches), "before the first step")
    if setting.kept:
        nothing = backend.run(
            CONDITIONER, {name: np.zeros_like(value[: setting.batch]) for name, value in given.items()}
        )
        context = {name: np.concatenate([value, nothing[name]]) for name, value in context.items()}
    return {name: value.reshape(-1, setting.batch, *value.shape[1:]) for name, value in context.items()}
