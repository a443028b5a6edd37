from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState
from transformers import BertConfig, BertModel, BertTokenizerFast

from msdm_engine.conditions.metadata import TextTokenizer
from msdm_engine.errors import InputError, RequestError
from msdm_train.model.config import preset
from msdm_train.model.msdm import TextEncoder
from msdm_train.model.pretrained import CACHED_TEXTS, FrozenText, read_text_encoder
from msdm_train.training.checkpoint import load_model, read_tensors
from msdm_train.training.config import FitConfig
from msdm_train.training.fit import fit

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "violet", "nuclei", "small", ";", "nuc", "##lei"]
CONFIG = FitConfig(steps=2, batch=2, crop_px=16, warmup_steps=1, log_every=1, learning_rate=0.01)


@pytest.fixture(autouse=True)
def fresh_accelerate() -> Iterator[None]:
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def save_bert(folder: Path, **changes: Any) -> Path:
    """A BERT with random weights, as transformers saves one."""
    torch.manual_seed(1)
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 40}
    config = BertConfig(**{"vocab_size": len(WORDS), "max_position_embeddings": 64, **sizes, **changes})
    BertModel(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


def test_it_computes_what_transformers_does(tmp_path: Path) -> None:
    folder = save_bert(tmp_path / "bert")
    read = read_text_encoder(str(folder), 48)
    assert (read.config.hidden, read.config.vocabulary) == (24, len(WORDS))
    ours = TextEncoder(replace(preset("tiny"), text=read.config)).eval()
    ours.load_state_dict(read.weights)
    ids, mask = TextTokenizer(read.tokenizer.encode(), 48).encode("Violet nuclei")
    assert ids[:4].tolist() == [2, 5, 6, 3]  # [CLS] violet nuclei [SEP]
    given = torch.as_tensor(ids)[None], torch.as_tensor(mask)[None]
    theirs = BertModel.from_pretrained(folder, attn_implementation="eager").eval()
    with torch.no_grad():
        # The same weights in the same modules.
        torch.testing.assert_close(ours(*given), theirs(*given).last_hidden_state, rtol=0, atol=1e-6)


@pytest.mark.parametrize("tuned", [False, True])
def test_training_with_it(small_pack: Path, tmp_path: Path, tuned: bool) -> None:
    folder = save_bert(tmp_path / "bert")
    config = replace(CONFIG, text_encoder=str(folder), tune_text_encoder=tuned)
    run = tmp_path / "run"
    fit(small_pack, run, replace(config, steps=1), model="tiny")
    fit(small_pack, run, config, model="tiny")  # and resumes
    model, info = load_model(run / "checkpoint")
    assert info.model.text.hidden == 24
    assert model.conditioner.fusion.from_text.in_features == 24
    raw, start = read_tensors(run / "checkpoint/training.safetensors"), read_text_encoder(str(folder), 48).weights
    same = [torch.equal(raw[f"model.text_encoder.{name}"], value) for name, value in start.items()]
    assert all(same) if not tuned else not all(same)
    assert any(name.startswith("adam.exp_avg.text_encoder") for name in raw) == tuned
    read_back = TextTokenizer(run / "checkpoint" / "tokenizer.json", 48)
    assert read_back.encode("nuclei")[0][:3].tolist() == [2, 6, 3]
    with pytest.raises(RequestError, match="--text-encoder together with --init"):
        fit(small_pack, tmp_path / "next", config, init=run / "checkpoint")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_act": "relu"}, "has hidden_act relu\n.*gelu"),
        ({"max_position_embeddings": 32}, "has 32 positions\n.*needs 48"),
        ({"vocab_size": 7}, "tokenizer of 11 entries for 7 embeddings"),
    ],
)
def test_what_the_graphs_cannot_compute_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_text_encoder(str(save_bert(tmp_path / "bert", **changes)), 48)


def test_no_bert(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "roberta"}')
    with pytest.raises(InputError, match=r"is a roberta\n.*BERT"):
        read_text_encoder(str(tmp_path), 48)
    with pytest.raises(InputError, match="cannot be read"):
        read_text_encoder(str(tmp_path / "none"), 48)


def test_a_frozen_encoder_computes_each_text_once() -> None:
    torch.manual_seed(0)
    encoder = TextEncoder(preset("tiny"))
    frozen = FrozenText(encoder)
    calls: list[int] = []
    encoder.register_forward_hook(lambda *_: calls.append(1))
    ids = torch.tensor([[5, 6, 0], [7, 0, 0], [5, 6, 0]])
    mask = (ids > 0).float()
    first = frozen(ids, mask)
    assert len(calls) == 2
    assert torch.equal(first[0], first[2])
    assert torch.equal(frozen(ids, mask), first)  # no dropout, and from the cache
    assert len(calls) == 2
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    assert CACHED_TEXTS * 48 * 768 * 4 < 512 * 2**20
