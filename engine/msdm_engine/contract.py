"""The contract that training, export and serving share: channels, tensor names, ranges, schedule row.

Everything here is a plain constant or a frozen dataclass. What two stages must agree on stands in this
file once; no stage spells a tensor name itself.

Tensors (B pairs, G guidance branches, H x W pixels, T text tokens):

======================  =========================  ========================================================
name                    shape, dtype               meaning
======================  =========================  ========================================================
``state``               [B, C, H, W] float32       RGB, nuclear maps and class maps together, data in [-1, 1]
``maps``                [GB, C-3, H, W] float32    nuclear maps asked for (and class maps), in [-1, 1]
``maps_present``        [GB, 1] float32            1: ``maps`` is a request; 0: the model invents them
``colour``              [GB, 12] float32           see :mod:`msdm_engine.conditions.colour`
``colour_present``      [GB, 2] float32            foreground, background given or not
``token_ids``           [N, T] int64               WordPiece ids, padded with 0
``token_mask``          [N, T] float32             1 token, 0 padding; all zero: no metadata given
``token_states``        [N, T, D] float32          states of the text encoder
``row``                 [5] float32                :data:`SCHEDULE_ROW`
``guidance``            [G, B] float32             weights of the branches; each column sums to one
``image``               [B, 3, H, W] float32       a finished picture, RGB in [-1, 1]
``critic_maps``         [B, 3, H, W] float32       foreground as 2p - 1, horizontal, vertical, in [-1, 1]
======================  =========================  ========================================================
"""

from __future__ import annotations

IMAGE_CHANNELS = ("red", "green", "blue")
MAP_CHANNELS = ("foreground", "horizontal", "vertical")

#: mean and standard deviation of R, G, B over foreground pixels, then over background pixels.
COLOUR_FEATURES = 12

#: One step: noise level sigma, then the coefficients of ``x' = c_x x + c_d D + c_prev D_prev + c_noise z``.
SCHEDULE_ROW = ("sigma", "c_x", "c_d", "c_prev", "c_noise")

#: Additive attention bias of a masked token: as good as minus infinity, and finite in float16.
MASKED_BIAS = -1.0e4

#: The precision of a bundle's graphs as exported; in others it has variants of them.
FLOAT32 = "float32"

TEXT_ENCODER = "text_encoder"
CONDITIONER = "conditioner"
DENOISER = "denoiser"
#: A segmenter trained on real tiles only, which sees nothing but the finished picture. A bundle may lack it.
CRITIC = "critic"

#: Inputs and outputs that the engine itself feeds and reads. Every other output of the conditioner is
#: handed to the denoiser under its own name, so the engine does not know how many levels a network has.
TEXT_ENCODER_INPUTS = ("token_ids", "token_mask")
TEXT_ENCODER_OUTPUTS = ("token_states",)
CONDITIONER_INPUTS = ("maps", "maps_present", "colour", "colour_present", "token_states", "token_mask")
ROW = "row"
DENOISER_INPUTS = ("state", "denoised_prev", "noise", ROW, "guidance")
DENOISER_OUTPUTS = ("state_next", "denoised")
CRITIC_INPUTS = ("image",)
CRITIC_OUTPUTS = ("critic_maps",)
