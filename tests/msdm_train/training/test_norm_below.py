from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from msdm_train.data.pack import Pack
from msdm_train.data.vocabulary import tokenizer_json
from msdm_train.model.config import preset
from msdm_train.model.msdm import MSDM
from msdm_train.training.checkpoint import CheckpointInfo, read_info, write_checkpoint
from msdm_train.training.norm_below import Strength, strengths, with_norm_below
from msdm_train.training.rebase import rebase
from msdm_train.training.start import scaled_to


@pytest.fixture
def tokenizer(opened_pack: Pack, tmp_path: Path) -> Path:
    path = tmp_path / "tokenizer.json"
    path.write_text(tokenizer_json(opened_pack, preset("tiny").text.vocabulary))
    return path


def silenced(pack: Pack) -> MSDM:
    """As a long run leaves it: every branch has grown, and the coarse level is all but switched off."""
    torch.manual_seed(1)
    model = MSDM(scaled_to(replace(preset("tiny"), norm_below=()), pack)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
        for parameter in model.unet.grow[0].parameters():
            parameter.mul_(1e-2)
    return model


def test_a_silent_level_is_found_and_wakes(opened_pack: Pack, tokenizer: Path) -> None:
    old = silenced(opened_pack)
    found = strengths(old.config, old.state_dict(), opened_pack, tokenizer)
    assert len(found) == 1
    assert found[0].below < 0.05 * found[0].skip
    config, weights = with_norm_below(old.state_dict(), old.config, found)
    assert config.norm_below == (0,)
    woken = strengths(config, weights, opened_pack, tokenizer)[0]
    assert woken.below == pytest.approx(woken.skip, rel=0.02)


@torch.no_grad()
def test_the_network_computes_what_it_did(opened_pack: Pack, tokenizer: Path) -> None:
    old = silenced(opened_pack)
    found = strengths(old.config, old.state_dict(), opened_pack, tokenizer)
    config, weights = with_norm_below(old.state_dict(), old.config, found)
    new = MSDM(config).eval()
    new.load_state_dict(weights)
    generator = torch.Generator().manual_seed(2)
    x, sigma = torch.randn(4, 6, 32, 32, generator=generator), torch.tensor([0.5])
    batch = {
        "maps": torch.zeros(4, 3, 32, 32),
        "maps_present": torch.ones(4, 1),
        "colour": torch.zeros(4, 12),
        "colour_present": torch.zeros(4, 2),
        "token_ids": torch.zeros(4, 48, dtype=torch.int64),
        "token_mask": torch.zeros(4, 48),
    }
    one, other = (model(x, sigma, model.context(batch)) for model in (old, new))
    blind = MSDM(config).eval()
    blind.load_state_dict(weights | {"unet.up.0.blocks.0.norm1.gain": torch.ones(32, 1, 1) * 0.01})
    moved = (blind(x, sigma, blind.context(batch)) - one).square().mean().sqrt()
    assert (other - one).square().mean().sqrt() < 0.2 * moved


def test_a_level_that_is_heard_stays_as_it_is(opened_pack: Pack) -> None:
    model = silenced(opened_pack)
    config, weights = with_norm_below(model.state_dict(), model.config, [Strength(0.5, 1.0)])
    assert config == model.config
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())


def test_rebase_writes_a_checkpoint_to_go_on_from(small_pack: Path, tokenizer: Path, tmp_path: Path) -> None:
    pack = Pack(small_pack)
    model = silenced(pack)
    source = tmp_path / "source"
    write_checkpoint(source, CheckpointInfo(1, model.config, {}, {}), model.state_dict(), tokenizer, None)
    rebase(source, pack, tmp_path / "out", norm_below=True)
    assert read_info(tmp_path / "out").model.norm_below == (0,)
