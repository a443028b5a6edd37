"""Model configuration and presets."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from msdm_engine.contract import IMAGE_CHANNELS, MAP_CHANNELS
from msdm_engine.errors import RequestError, nearest

PICTURE = len(IMAGE_CHANNELS)


@dataclass(frozen=True)
class TextConfig:
    """The BERT: sizes as in ``transformers.BertConfig``."""

    vocabulary: int = 1024
    hidden: int = 128
    layers: int = 2
    heads: int = 4
    intermediate: int = 256


@dataclass(frozen=True)
class ModelConfig:
    """The whole model; see the package's docstring for how the parts meet.

    Args:
        channels: width of each resolution; the first works at 1/stem of the picture.
        blocks: residual blocks for each resolution, on the way down and again on the way up.
        stem: pixel-unshuffle factor in front of the U-Net.
        map_channels: width of the map features for each resolution.
        attention_levels: indices into ``channels`` where cross-attention sits.
        heads, head_channels: of the cross-attention.
        token_channels: width of the fused token sequence.
        embedding: width of the embedding of sigma and of the pooled conditions.
        morphology_tokens: number of tokens that summarise the maps.
        norm_below: levels where what comes up from the next coarser one is normed before it meets the skip connection.
        detail_width: of the convolutions at full resolution (:mod:`msdm_train.model.detail`), at least 7; 0: none.
        text_tokens: T, the length that every text is padded to.
        n_classes: nucleus classes; 0 leaves class maps out.
        state_mean: of each state channel in [-1, 1] over the training data.
        colour_basis: 9 numbers, the rows of an orthonormal 3 x 3 matrix; each row is a direction of RGB along which
            the data varies independently of the others. Empty: red, green and blue themselves.
        state_std: spread of the data: three numbers along the rows of ``colour_basis``, then one for each map.
        detail_std: spread of the data's detail (:mod:`msdm_train.model.detail`): three numbers along the axes for
            what is once differenced, three for twice, three for the finest.
    """

    channels: tuple[int, ...] = (48, 96, 144, 192)
    blocks: int = 2
    stem: int = 2
    map_channels: tuple[int, ...] = (32, 48, 48, 48)
    attention_levels: tuple[int, ...] = (2, 3)
    heads: int = 4
    head_channels: int = 32
    token_channels: int = 128
    embedding: int = 192
    morphology_tokens: int = 4
    norm_below: tuple[int, ...] = ()
    detail_width: int = 0
    text_tokens: int = 48
    n_classes: int = 0
    text: TextConfig = field(default_factory=TextConfig)
    colour_basis: tuple[float, ...] = ()
    state_mean: tuple[float, ...] = (0.0,) * 6
    state_std: tuple[float, ...] = (0.5,) * 6
    detail_std: tuple[float, ...] = (0.05,) * 9

    def __post_init__(self) -> None:
        if 0 < self.detail_width <= 2 * PICTURE:
            raise RequestError(f"detail_width {self.detail_width}", note=f"0, or more than the {2 * PICTURE} bands")
        if not set(self.norm_below) <= set(range(len(self.channels) - 1)):
            raise RequestError(f"norm_below {self.norm_below}", note="levels that have a coarser one, the first is 0")

    @property
    def state_channels(self) -> int:
        """RGB, nuclear maps and class maps."""
        return PICTURE + self.maps

    @property
    def maps(self) -> int:
        """Channels of the morphology condition."""
        return len(MAP_CHANNELS) + self.n_classes

    @property
    def stride(self) -> int:
        """Height and width of a picture must be multiples of this."""
        return self.stem * 2 ** (len(self.channels) - 1)

    def to_json(self) -> dict[str, Any]:
        """A JSON object that :meth:`from_json` reads back."""
        return asdict(self)

    @staticmethod
    def from_json(raw: dict[str, Any]) -> ModelConfig:
        """Reads a configuration; an unknown key names the nearest legal one."""
        legal = {f.name for f in fields(ModelConfig)}
        for key in raw:
            if key not in legal:
                raise RequestError(f"unknown model setting '{key}'", note=nearest(key, legal))
        values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in raw.items()}
        if isinstance(values.get("text"), dict):
            values["text"] = TextConfig(**values["text"])
        return ModelConfig(**values)


PRESETS: dict[str, ModelConfig] = {
    "tiny": ModelConfig(
        channels=(16, 32),
        blocks=1,
        map_channels=(8, 16),
        attention_levels=(1,),
        heads=2,
        head_channels=16,
        token_channels=32,
        embedding=32,
        morphology_tokens=2,
        norm_below=(0,),
        detail_width=8,
        text=TextConfig(vocabulary=1024, hidden=32, layers=1, heads=2, intermediate=64),
    ),
    # As narrow as noise can still be told from tissue at half resolution: 32 channels for 6 x 4 values.
    "mini": ModelConfig(
        channels=(32, 64, 96),
        blocks=1,
        map_channels=(16, 24, 24),
        attention_levels=(2,),
        heads=2,
        token_channels=64,
        embedding=96,
        morphology_tokens=2,
        text=TextConfig(vocabulary=1024, hidden=32, layers=1, heads=2, intermediate=64),
    ),
    "small": ModelConfig(norm_below=(1, 2), detail_width=16),
    "base": ModelConfig(
        channels=(96, 192, 288, 384),
        map_channels=(48, 64, 96, 96),
        token_channels=256,
        embedding=384,
        heads=6,
        norm_below=(1, 2),
        detail_width=16,
        text=TextConfig(hidden=256, layers=4, heads=4, intermediate=1024),
    ),
    "large": ModelConfig(
        channels=(160, 320, 480, 640),
        blocks=3,
        map_channels=(64, 96, 128, 128),
        token_channels=384,
        embedding=640,
        heads=8,
        head_channels=48,
        norm_below=(1, 2),
        detail_width=32,
        text=TextConfig(hidden=384, layers=6, heads=6, intermediate=1536),
    ),
}


def preset(name: str) -> ModelConfig:
    """The preset of that name; an unknown name is an error with the legal ones."""
    if name not in PRESETS:
        raise RequestError(f"unknown preset '{name}'", note=nearest(name, PRESETS))
    return PRESETS[name]
