"""A pretrained BERT (transformers' format, WordPiece tokenizer) in the place of the small one that is trained along."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AutoTokenizer, BertConfig, BertModel
from transformers.models.auto.configuration_auto import AutoConfig

from msdm_engine.errors import InputError
from msdm_train.model.config import TextConfig
from msdm_train.model.msdm import TextEncoder

#: Texts that are kept; each costs T x hidden x 4 bytes, 144 KiB for BERT base and 48 tokens.
CACHED_TEXTS = 2048


@dataclass(frozen=True)
class PretrainedText:
    """A text encoder from elsewhere: its sizes, the weights of :class:`TextEncoder`, the text of its tokenizer."""

    config: TextConfig
    weights: dict[str, Tensor]
    tokenizer: str


def read_text_encoder(name: str, tokens: int) -> PretrainedText:
    """Reads a BERT.

    Args:
        name: folder with ``config.json``, weights and tokenizer, or a name on the hub where a network exists.
        tokens: T of the model; position embeddings behind it are left out.

    Raises:
        InputError: it cannot be read, is no BERT, or differs from what the graphs compute.
    """
    try:
        config = AutoConfig.from_pretrained(name)
        _check(name, config, tokens)
        bert = BertModel.from_pretrained(name, add_pooling_layer=False)
        tokenizer = AutoTokenizer.from_pretrained(name).backend_tokenizer
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(
            f"text encoder {name} cannot be read: {error}",
            note="a folder in the format of transformers with config.json, weights and a fast tokenizer",
        ) from error
    if tokenizer.get_vocab_size() > config.vocab_size:
        raise InputError(
            f"text encoder {name} has a tokenizer of {tokenizer.get_vocab_size()} entries for "
            f"{config.vocab_size} embeddings"
        )
    positions = "embeddings.position_embeddings.weight"
    state: dict[str, Tensor] = {k: v.float() for k, v in bert.state_dict().items()}
    state[positions] = state[positions][:tokens].clone()
    wanted = {key for key in state if not key.endswith(("position_ids", "token_type_ids"))}
    text = TextConfig(
        config.vocab_size,
        config.hidden_size,
        config.num_hidden_layers,
        config.num_attention_heads,
        config.intermediate_size,
    )
    return PretrainedText(text, {f"bert.{key}": state[key] for key in wanted}, tokenizer.to_str())


def _check(name: str, config: Any, tokens: int) -> None:
    """The exported graph is a standard BERT: anything else in the file would be lost without a word."""
    standard = BertConfig()
    if config.model_type != "bert":
        raise InputError(f"text encoder {name} is a {config.model_type}", note="a BERT (model_type bert)")
    for key in ("hidden_act", "layer_norm_eps", "type_vocab_size"):
        if getattr(config, key) != getattr(standard, key):
            raise InputError(
                f"text encoder {name} has {key} {getattr(config, key)}",
                note=f"this version reads {getattr(standard, key)}",
            )
    if config.max_position_embeddings < tokens:
        raise InputError(
            f"text encoder {name} has {config.max_position_embeddings} positions", note=f"the model needs {tokens}"
        )


class FrozenText:
    """A text encoder that is not trained: without dropout, each distinct text computed once."""

    def __init__(self, encoder: TextEncoder) -> None:
        self._encoder = encoder.requires_grad_(False).eval()
        self._cache: dict[bytes, Tensor] = {}

    @torch.no_grad()
    def __call__(self, token_ids: Tensor, token_mask: Tensor) -> Tensor:
        """[B, T] int64 and [B, T] float -> [B, T, hidden] float32."""
        keys = [ids.numpy().tobytes() for ids in token_ids.cpu()]
        rows = []
        for i, key in enumerate(keys):
            if key not in self._cache:
                if len(self._cache) >= CACHED_TEXTS:
                    del self._cache[next(iter(self._cache))]
                # One row at a time: the states of a text then do not depend on what else is in the batch.
                self._cache[key] = self._encoder(token_ids[i : i + 1], token_mask[i : i + 1])[0]
            rows.append(self._cache[key])
        return torch.stack(rows)
