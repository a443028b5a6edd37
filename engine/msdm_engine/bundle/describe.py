"""What a request would make and what it would cost, without making it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from msdm_engine.bundle.reader import Bundle
from msdm_engine.conditions.metadata import TextTokenizer
from msdm_engine.contract import DENOISER
from msdm_engine.errors import BundleError
from msdm_engine.output.job import FOLDERS, check_texts
from msdm_engine.output.shard import Shard
from msdm_engine.output.sink import OutputChoice
from msdm_engine.pipeline.padding import Padding
from msdm_engine.redraw import check_critic_is_asked
from msdm_engine.requests.compose import ComposedGroup, Size, compose
from msdm_engine.requests.request import SetRequest

MAX_ELEMENTS = 2**50
#: Characters of one thing that a bundle says of its critic.
MAX_TOLD = 80


def describe(
    request: SetRequest,
    bundle: Path | None,
    batch: int | None,
    *,
    critic: bool = True,
    output: OutputChoice = FOLDERS,
    shard: Shard | None = None,
) -> str:
    """Checks a request as :func:`msdm_engine.output.job.generate` does, and says what it would make; writes nothing.

    The cost is in megapixel-steps: runs of the denoiser, times the megapixels that it sees: padded to the stride,
    short batches filled up, each guidance branch counted in the rows where guidance acts. Where pairs may be drawn
    again, the worst case stands beside it; the critic's own runs are not counted.
    """
    check_critic_is_asked(request, critic)
    opened = Bundle.open(bundle)
    groups = compose(opened.manifest, request, batch)
    check_texts(TextTokenizer(opened.tokenizer, opened.manifest.text_tokens), groups)
    output.header({size for group in groups for size in group.work})
    lines, total, worst = [], 0.0, 0.0
    for number, group in enumerate(groups):
        for size, (pairs, computed) in group.work.items():
            cost = computed * runs_per_pair(group) * megapixels(opened, size)
            total += cost
            worst += cost * (1 + group.acceptance.redraws if group.acceptance else 1)
            lines.append(
                f"group {number}: {pairs} pair(s) of {size[0]} x {size[1]} px, {group.look.preset or 'no preset'}, "
                f"{group.sampling.solver}, {group.sampling.steps} steps, {len(group.guidance.branches())} guidance "
                f"branch(es), batch {group.sampling.batch}, cost {cost:.4g} megapixel-steps, about "
                f"{tensor_mib(opened, size, group):.0f} MiB of tensors"
            )
        if group.acceptance:
            lines.append(
                f"group {number}: pairs below a Dice of {group.acceptance.at_least:g} with the critic are drawn again, "
                f"up to {group.acceptance.redraws} time(s)"
            )
        if group.findings.text():
            lines.append(f"group {number}: {group.findings.text()}")
    if shard:
        wanted = shard.range_of(groups)
        lines.append(f"shard {shard.number}/{shard.of} of this set: pairs {wanted.start} to {wanted.stop - 1}")
    pairs = sum(group.count for group in groups)
    at_worst = f" (at worst {worst:.4g}, if every pair is drawn as often as it may)" if worst > total else ""
    lines.append(f"{pairs} pairs, cost {total:.4g} megapixel-steps{at_worst}; nothing was written")
    return "\n".join(lines)


def critic_text(critic: dict[str, Any] | None) -> str:
    """What a bundle says of its critic, on one line: short texts that steer no terminal, as bundles are untrusted."""
    if critic is None:
        return "critic none: pairs are not scored (msdm-export critic adds one)"
    texts = {name: " ".join(map(str, value)) if isinstance(value, list) else value for name, value in critic.items()}
    told = (f"{name} {text}"[:MAX_TOLD] for name, text in texts.items() if not isinstance(text, dict))
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in f"critic {', '.join(told)}")


def runs_per_pair(group: ComposedGroup) -> int:
    """Runs of the denoiser for one pair: rows of the table, times the branches where guidance acts."""
    guided = sum(group.guidance.acts_at(float(sigma)) for sigma in group.sampling.table()[:, 0])
    return group.sampling.steps + guided * (len(group.guidance.branches()) - 1)


def megapixels(bundle: Bundle, size: Size) -> float:
    """Of one picture as the graphs see it."""
    height, width = Padding.of(*size, bundle.manifest.stride).shape
    return height * width / 1e6


def tensor_mib(bundle: Bundle, size: Size, group: ComposedGroup) -> float:
    """Inputs and outputs of the denoiser for one batch in MiB; the runtime's own workspace comes on top."""
    stride = bundle.manifest.stride
    height, width = Padding.of(*size, stride).shape
    known = {
        "batch": group.sampling.batch,
        "branches": len(group.guidance.branches()),
        "rows": height // stride,
        "columns": width // stride,
    }
    spec = bundle.manifest.graphs[DENOISER]
    return 4 * sum(_elements(tensor.shape, known) for tensor in (*spec.inputs, *spec.outputs)) / 2**20


def _elements(shape: tuple[int | str, ...], known: dict[str, int]) -> int:
    """A dimension is a number, a name, or as in ``4*rows``."""
    elements = 1
    for dimension in shape:
        factor, _, name = ("", "", "") if isinstance(dimension, int) else dimension.rpartition("*")
        legal = isinstance(dimension, int) or (name in known and (factor or "1").isdecimal() and len(factor) < 9)
        elements *= dimension if isinstance(dimension, int) else int(factor or "1") * known[name] if legal else 1
        if not legal or elements > MAX_ELEMENTS:
            raise BundleError(
                f"the manifest names the dimension '{dimension}' of a tensor of the graph '{DENOISER}'",
                note=f"numbers, and {', '.join(known)}, each with a factor as in 4*rows",
                hint="export the bundle again",
            )
    return elements
