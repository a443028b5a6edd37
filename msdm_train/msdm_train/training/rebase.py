"""Turns trained weights to other colour axes and data scales, so that training need not begin anew.

With centred components z = B (x - mean), spreads s and raw network F, EDM's estimate is
D - mean = B^T (c_skip z + c_out F(c_in z)). For sigma far below every spread c_in -> 1 / s, c_skip -> 1 and
c_out -> sigma, so another basis B' with spreads s' computes the same there if

    first layer:  W' = W diag(1/s) B B'^T diag(s'),        last layer:  W' = B' B^T W.

Fine texture is therefore carried over exactly; how colour and layout form at high noise has to be learnt again.

A model without bands of detail (:mod:`msdm_train.model.detail`) may gain them on the way. The stem's weights for them
and the head's last layer begin at zero, so the wider network computes what the other did; the model only loses the
finest of what is noise. It may gain norms where coarse levels are silent too (:mod:`msdm_train.training.norm_below`).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from msdm_engine.errors import RequestError
from msdm_train.data.pack import Pack
from msdm_train.model.config import PICTURE, ModelConfig
from msdm_train.model.detail import Detail
from msdm_train.training.checkpoint import write_checkpoint
from msdm_train.training.norm_below import strengths, with_norm_below
from msdm_train.training.start import read_init, scaled_to

ENTER, LEAVE, LEAVE_BIAS = "unet.enter.weight", "unet.leave.weight", "unet.leave.bias"


def rebase(
    source: Path, pack: Pack, out: Path, detail_width: int | None = None, norm_below: bool = False
) -> ModelConfig:
    """Writes a checkpoint with the weights of ``source`` on the colour axes and spreads of a pack.

    Args:
        source: checkpoint folder or bundle.
        out: checkpoint folder to write; training goes on with ``fit --init OUT``.
        detail_width: of the head that draws detail, for a source without one; None: as the source.
        norm_below: give norms to what comes from levels that are silent.

    Raises:
        InputError, BundleError: the source or the pack cannot be used.
        RequestError: another number of nucleus classes, another head than the source has, or ``out`` exists.
    """
    if out.exists():
        raise RequestError(f"{out} exists", hint="choose another --out")
    info, weights, tokenizer = read_init(source)
    if info.model.n_classes != pack.info.n_classes:
        raise RequestError(f"{source} has {info.model.n_classes} nucleus classes, the data {pack.info.n_classes}")
    width = info.model.detail_width if detail_width is None else detail_width
    if info.model.detail_width not in (0, width):
        raise RequestError(f"{source} has a head of {info.model.detail_width}, not {width}", hint="leave it as it is")
    target = scaled_to(replace(info.model, detail_width=width), pack)
    out.parent.mkdir(parents=True, exist_ok=True)
    text = out.with_name(f".{out.name}.tokenizer.json")
    try:
        text.write_text(tokenizer)
        moved = rebased(with_detail(weights, info.model, target), info.model, target)
        if norm_below:
            target, moved = with_norm_below(moved, target, strengths(target, moved, pack, text))
        write_checkpoint(out, replace(info, model=target), moved, text, None)
    finally:
        text.unlink(missing_ok=True)
    return target


def rebased(weights: dict[str, Tensor], old: ModelConfig, new: ModelConfig) -> dict[str, Tensor]:
    """Weights under ``new``'s axes and spreads that compute at low noise what ``weights`` do under ``old``'s."""
    turn = _matrix(new) @ _matrix(old).T
    scale_old, scale_new = torch.tensor(old.state_std).double(), torch.tensor(new.state_std).double()
    enter = torch.diag(1 / scale_old) @ turn.T @ torch.diag(scale_new)
    moved = dict(weights)
    # Pixel unshuffle puts the stem^2 pixels of channel c at c stem^2 + i: the matrices act on c.
    first, bands = weights[ENTER].double().split_with_sizes(_inputs(old, weights[ENTER]), 1)
    split = first.reshape(first.shape[0], len(turn), -1, *first.shape[2:])
    turned = torch.einsum("ocpyx,cd->odpyx", split, enter).reshape(first.shape)
    moved[ENTER] = torch.cat([turned, bands], 1).float()
    for name in (LEAVE, LEAVE_BIAS):
        last = weights[name].double()
        moved[name] = torch.einsum("dc,cr->dr", turn, last.reshape(len(turn), -1)).reshape(last.shape).float()
    return moved


def with_detail(weights: dict[str, Tensor], old: ModelConfig, new: ModelConfig) -> dict[str, Tensor]:
    """Weights of a model without bands of detail as those of one with them that computes the same."""
    if old.detail_width == new.detail_width:
        return weights
    first = weights[ENTER]
    unseen = first.new_zeros(first.shape[0], 2 * PICTURE * new.stem**2, *first.shape[2:])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        head = Detail(new).state_dict()
    return weights | {f"unet.detail.{name}": w for name, w in head.items()} | {ENTER: torch.cat([first, unseen], 1)}


def _inputs(config: ModelConfig, first: Tensor) -> list[int]:
    """How many of the stem's inputs are the state's pixels, and how many those of the bands of detail."""
    state = config.state_channels * config.stem**2
    return [state, first.shape[1] - state]


def _matrix(config: ModelConfig) -> Tensor:
    """[C, C] float64: the colour basis, and the identity for the maps."""
    matrix = torch.eye(config.state_channels, dtype=torch.float64)
    if config.colour_basis:
        matrix[:3, :3] = torch.tensor(config.colour_basis, dtype=torch.float64).reshape(3, 3)
    return matrix
