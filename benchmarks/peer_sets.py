"""What is the same for all peers: requests, their conditions as arrays, noise, and files."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from benchmarks.peer_networks import Arrays, Peer

from msdm_engine import Bundle, Engine, Pair, PairRequest
from msdm_engine.bundle.manifest import Sampling
from msdm_engine.conditions.maps import maps_from_instances
from msdm_engine.conditions.metadata import TextTokenizer
from msdm_engine.output.pair_set import PairSet
from msdm_engine.output.sink import OutputChoice
from msdm_engine.pipeline.handover import pictures_from_states
from msdm_engine.sampling.guidance import Guidance
from msdm_engine.sampling.noise import gaussian


def conditions_of(wanted: Sequence[PairRequest], tokenizer: TextTokenizer) -> Arrays:
    """The network's conditions, [B, ...] each, text as token ids."""
    instances = [request.instances for request in wanted]
    colours = [request.colour.features() for request in wanted]
    tokens = [tokenizer.encode(request.metadata.text()) for request in wanted]
    return {
        "maps": np.stack([maps_from_instances(one) for one in instances if one is not None]),
        "maps_present": np.ones((len(wanted), 1), np.float32),
        "colour": np.stack([colour for colour, _ in colours]),
        "colour_present": np.stack([present for _, present in colours]),
        "token_ids": np.stack([ids for ids, _ in tokens]),
        "token_mask": np.stack([mask for _, mask in tokens]),
    }


def start_of(wanted: Sequence[PairRequest], channels: int, sigma_max: float) -> np.ndarray:
    """The initial states of the requests, those that the engine takes too."""
    z = [gaussian(one.seed, one.index, 0, channels, one.height_px, one.width_px) for one in wanted]
    return (sigma_max * np.stack(z)).astype(np.float32)


def pairs_of_peer(peer: Peer, bundle: Bundle, wanted: Sequence[PairRequest], sampling: Sampling) -> Iterator[Pair]:
    """Batch after batch through a peer, as one would write it around any of them."""
    tokenizer = TextTokenizer(bundle.tokenizer, bundle.manifest.text_tokens)
    table = sampling.table()
    for first in range(0, len(wanted), sampling.batch):
        batch = wanted[first : first + sampling.batch]
        x = start_of(batch, bundle.manifest.state_channels, float(table[0, 0]))
        final = peer.trajectory(x, table, conditions_of(batch, tokenizer))
        for request, state in zip(batch, final, strict=True):
            assert request.instances is not None
            yield Pair(request, pictures_from_states(state), request.instances.astype(np.uint16))


def pairs_of_engine(engine: Engine, wanted: Sequence[PairRequest], sampling: Sampling) -> Iterator[Pair]:
    """The engine, without its critic, which no peer has."""
    return engine.sample(wanted, sampling, Guidance(), critic=False)


def to_files(pairs: Callable[[], Iterator[Pair]], wanted: Sequence[PairRequest], scratch: Path) -> None:
    """Writes the pairs as the engine's own command does, into a new folder in ``scratch``; deleting is not its work."""
    sizes = {(request.height_px, request.width_px) for request in wanted}
    header = {
        "provenance": {"Comment": "benchmark"},
        "pairs": len(wanted),
        "output": OutputChoice().header(sizes),
    }
    folder = Path(tempfile.mkdtemp(dir=scratch))
    with PairSet(folder / "set", header) as written:
        for pair in pairs():
            written.add(pair)
