"""The whole model: text encoder, conditioner and U-Net, with EDM preconditioning for each channel."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from msdm_train.model.conditioner import Conditioner, Conditions, Context
from msdm_train.model.config import PICTURE, ModelConfig
from msdm_train.model.unet import UNet


class TextEncoder(nn.Module):
    """BERT (``transformers.BertModel``) without its pooler: token ids -> token states."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        text = config.text
        self.bert = BertModel(
            BertConfig(
                vocab_size=text.vocabulary,
                hidden_size=text.hidden,
                num_hidden_layers=text.layers,
                num_attention_heads=text.heads,
                intermediate_size=text.intermediate,
                max_position_embeddings=config.text_tokens,
                attn_implementation="eager",
            ),
            add_pooling_layer=False,
        )

    def forward(self, token_ids: Tensor, token_mask: Tensor) -> Tensor:
        """[N, T] int64 and [N, T] float -> [N, T, hidden]. Rows without any token attend to padding; masked later."""
        return self.bert(input_ids=token_ids, attention_mask=token_mask).last_hidden_state


class MSDM(nn.Module):
    """D(x; sigma, conditions) of Karras et al. 2022 (EDM), table 1, with a mean and sigma_data for each component.

    Components are the state's channels, RGB replaced by its principal axes. Red, green and blue of a stained tissue
    vary together: one axis carries most of the spread, and a network that is scaled by the spread of RGB leaves
    coloured mottle where the tissue is flat. A rotation keeps white noise white, so sampling knows nothing of it.
    """

    mean: Tensor
    std: Tensor
    basis: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.text_encoder = TextEncoder(config)
        self.conditioner = Conditioner(config, UNet.attention_blocks(config))
        self.unet = UNet(config)
        self.register_buffer("mean", torch.tensor(config.state_mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(config.state_std)[:, None, None], persistent=False)
        basis = torch.tensor(config.colour_basis).reshape(3, 3) if config.colour_basis else torch.eye(3)
        self.register_buffer("basis", basis[:, :, None, None], persistent=False)

    def context(self, batch: dict[str, Tensor]) -> Context:
        """Conditions of a batch (names as in :mod:`msdm_engine.contract`) -> what every step needs.

        ``token_states`` are used where the batch holds them already; else the text encoder makes them.
        """
        states = batch.get("token_states")
        if states is None:
            states = self.text_encoder(batch["token_ids"], batch["token_mask"])
        return self.conditioner(
            Conditions(
                batch["maps"],
                batch["maps_present"],
                batch["colour"],
                batch["colour_present"],
                states,
                batch["token_mask"],
            )
        )

    def forward(self, x: Tensor, sigma: Tensor, context: Context) -> Tensor:
        """Denoised estimate D of the noisy state.

        Args:
            x: [B, C, H, W] float32, data in [-1, 1] plus sigma times unit noise.
            sigma: [B] or [1] float32, at least 0.002.
            context: conditions of the B samples.
        """
        s = sigma[:, None, None, None]
        variance = s**2 + self.std**2
        c_in, c_skip, c_out = variance.rsqrt(), self.std**2 / variance, s * self.std * variance.rsqrt()
        centred = self.components(x - self.mean)
        detail = self.unet.detail
        bands = None if detail is None else detail.bands(centred[:, :PICTURE], s)
        denoised = c_skip * centred + c_out * self.unet(c_in * centred, sigma, context, bands)
        if detail is not None:
            denoised = torch.cat([detail.without_finest(denoised[:, :PICTURE], s), denoised[:, PICTURE:]], 1)
        return self.mean + self.channels(denoised)

    def components(self, x: Tensor) -> Tensor:
        """[B, C, H, W] channels -> components: RGB onto the rows of the colour basis, maps as they are."""
        return self._rotated(x, self.basis) if self.config.colour_basis else x

    def channels(self, x: Tensor) -> Tensor:
        """The inverse of :meth:`components`."""
        return self._rotated(x, self.basis.transpose(0, 1)) if self.config.colour_basis else x

    @staticmethod
    def _rotated(x: Tensor, basis: Tensor) -> Tensor:
        # Products and sums instead of a convolution: element-wise work stays float32 in a half-precision graph. Written
        # out, they fuse; a sum over an axis of three is a reduction, 2 % of a step in OpenVINO.
        red, green, blue = x[:, :1] * basis[:, 0], x[:, 1:2] * basis[:, 1], x[:, 2:3] * basis[:, 2]
        return torch.cat([red + green + blue, x[:, 3:]], 1)
