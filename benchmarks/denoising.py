"""How well models denoise, by noise level and colour axis: ``python -m benchmarks.denoising MODEL... --data PACK``.

Models are checkpoints or bundles. All see the same val crops, noise and noise levels. For each noise level: the squared
error of the denoised picture along each principal axis of colour of the train pixels, as a share of the error that
EDM's best linear estimate would have if the axes were all there is to know (the weight of
:func:`msdm_train.training.loss.edm_loss`), and the squared error of the maps. Writes
``benchmarks/results/denoising.json``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import torch
from benchmarks.timer import environment, write_json
from torch import Tensor

from msdm_engine.conditions.metadata import TextTokenizer
from msdm_train.data.batches import CropSampler
from msdm_train.data.pack import Pack
from msdm_train.model.msdm import MSDM
from msdm_train.training.start import read_init

RESULT = Path(__file__).parent / "results" / "denoising.json"
SIGMAS = (0.03, 0.1, 0.3, 1.0, 3.0)
CROP_PX, BATCH, BATCHES, SEED = 128, 6, 4, 99
PATH = click.Path(path_type=Path)


def opened(source: Path) -> tuple[MSDM, int, bytes]:
    """The model, its steps and its tokenizer."""
    info, weights, tokenizer = read_init(source)
    model = MSDM(info.model)
    model.load_state_dict(weights)
    return model.eval(), info.step, tokenizer.encode()


@torch.no_grad()
def errors(model: MSDM, tokenizer: bytes, pack: Pack) -> dict[str, dict[str, Any]]:
    """For each noise level ``axes`` (largest spread first), ``picture`` (their mean) and ``maps``."""
    basis = torch.tensor(pack.info.statistics["colour_basis"]).float()
    std = torch.tensor(pack.info.statistics["component_std"]).float()
    text = TextTokenizer(tokenizer, model.config.text_tokens)
    sampler = CropSampler(pack, "val", crop_px=CROP_PX, batch=BATCH, tokenizer=text, seed=SEED)
    sums = {sigma: torch.zeros(4) for sigma in SIGMAS}
    for number in range(BATCHES):
        batch: dict[str, Tensor] = {name: torch.as_tensor(value) for name, value in sampler(number).items()}
        state = batch["state"]
        noise = torch.randn(state.shape, generator=torch.Generator().manual_seed(number))
        context = model.context({**batch, "maps": state[:, 3:]})
        for sigma in SIGMAS:
            error = model(state + sigma * noise, torch.tensor([sigma]), context) - state
            along = torch.einsum("kc,bchw->bkhw", basis, error[:, :3]).square().mean((0, 2, 3))
            weight = (sigma**2 + std**2) / (sigma * std) ** 2
            sums[sigma] += torch.cat([weight * along, error[:, 3:].square().mean()[None]]) / BATCHES
    return {
        f"{sigma:g}": {"axes": s[:3].tolist(), "picture": s[:3].mean().item(), "maps": s[3].item()}
        for sigma, s in sums.items()
    }


@click.command()
@click.argument("models", type=PATH, nargs=-1, required=True)
@click.option("--data", "pack", type=PATH, required=True, help="packed data set")
@click.option("--name", "names", multiple=True, help="what the JSON calls each model, in order [default: its folder]")
def main(models: tuple[Path, ...], pack: Path, names: tuple[str, ...]) -> None:
    """Measure, then write the JSON."""
    data = Pack(pack)
    found: dict[str, dict[str, Any]] = {}
    for name, source in zip(names or [m.name for m in models], models, strict=True):
        model, steps, tokenizer = opened(source)
        found[name] = {"steps": steps, "by_noise_level": errors(model, tokenizer, data)}
        for sigma, row in found[name]["by_noise_level"].items():
            click.echo(f"{name:20s} sigma {sigma:5s} picture {row['picture']:.4f}")
    document = {
        "protocol": f"{BATCH * BATCHES} val crops of {CROP_PX} px, all conditions given, the same noise for all models",
        "axes_std": data.info.statistics["component_std"],
        "models": found,
        "environment": environment("torch"),
    }
    write_json(RESULT, document)


if __name__ == "__main__":
    main()
