"""The flags of ``msdm-engine sample`` as a request of one group."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from msdm_engine.conditions.metadata import Metadata
from msdm_engine.critic import acceptance_of
from msdm_engine.errors import RequestError
from msdm_engine.requests.request import ColourChoice, GroupRequest, Invent, Layout, Masks, Morphology, SetRequest
from msdm_engine.sampling.guidance import Guidance

DEFAULT_COUNT = 16


def refuse_flags_beside_file(context: click.Context, options: dict[str, Any]) -> None:
    """Raises RequestError if a flag that describes pairs was given beside a request file."""
    given = [
        parameter.opts[0]
        for parameter in context.command.params
        if parameter.name in options and context.get_parameter_source(parameter.name) == ParameterSource.COMMANDLINE
    ]
    if given:
        raise RequestError(
            f"{', '.join(given)} beside a request file",
            note="the file says everything about the pairs",
            hint="write it into the file, or leave the file out",
        )


def refuse_root_without_file(root: Path | None) -> None:
    """Raises RequestError if --root was given without a request file."""
    if root is not None:
        raise RequestError(f"--root {root} without a request file", note="it is what paths in the file are relative to")


def request_from_flags(options: dict[str, Any]) -> SetRequest:
    """The request that the flags describe; contradictions are a RequestError."""
    morphology = _morphology(options)
    masks = isinstance(morphology, Masks)
    if masks and options["size_px"] is not None:
        raise RequestError("--size and --masks are given", note="the masks decide the size")
    if options["area_px"] is not None and not isinstance(morphology, Layout):
        raise RequestError("--area goes with --layout", note="masks and invented layouts have their own")
    size = options["size_px"]
    group = GroupRequest(
        morphology=morphology,
        count=options["count"] if masks or options["count"] is not None else DEFAULT_COUNT,
        height_px=size,
        width_px=size,
        preset=options["preset"],
        colour=ColourChoice(image=options["colour_from"], mask=options["colour_mask"], jitter=options["colour_jitter"]),
        metadata=Metadata(options["assay"], options["indication"], options["description"]),
        guidance=_guidance(options),
        steps=options["steps"],
        solver=options["solver"],
        acceptance=acceptance_of(options["min_agreement"], options["max_redraws"]),
    )
    return SetRequest((group,), options["seed"])


def _guidance(options: dict[str, Any]) -> Guidance | None:
    """None where neither flag was given; one of them alone leaves the other at none."""
    given = {name: options[f"guide_{name}"] for name in ("text", "colour") if options[f"guide_{name}"] is not None}
    return Guidance(**given) if given else None


def _morphology(options: dict[str, Any]) -> Morphology:
    masks, layout, invent = options["masks"], options["layout"], options["invent"]
    if sum((masks is not None, layout is not None, invent)) != 1:
        raise RequestError(
            "what the pairs follow is not clear",
            note="give exactly one of --masks FOLDER, --layout KIND, --invent, or a request file",
        )
    if masks is not None:
        return Masks(masks)
    if layout is not None:
        return Layout(layout, {} if options["area_px"] is None else {"area_px": options["area_px"]})
    return Invent()
