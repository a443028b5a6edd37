"""From a request to the conditions of each pair: numbering, seeds, presets, jitter, masks, cost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import msdm_engine.requests.compose
from msdm_engine import Bundle, Engine
from msdm_engine.bundle.manifest import Manifest
from msdm_engine.conditions.colour import Colour, RegionColour
from msdm_engine.conditions.metadata import Metadata
from msdm_engine.errors import InputError, RequestError
from msdm_engine.layouts import LayoutRequest
from msdm_engine.output.png import png_bytes
from msdm_engine.pairs import PairRequest
from msdm_engine.requests.compose import (
    AREA_OF_SIZE,
    ComposedGroup,
    compose,
    jittered,
    preset_for_layout,
)
from msdm_engine.requests.request import ColourChoice, GroupRequest, Invent, Layout, Masks, SetRequest
from msdm_engine.sampling.guidance import Guidance

GREY = RegionColour((100.0, 150.0, 200.0), (10.0, 10.0, 10.0))
INVENT = GroupRequest(Invent(), count=2)


def drawn(pair: PairRequest) -> np.ndarray:
    assert pair.instances is not None
    return pair.instances


@pytest.fixture
def manifest(bundle_folder: Path) -> Manifest:
    return Bundle.open(bundle_folder).manifest


@pytest.fixture
def mask_folder(tmp_path: Path) -> Path:
    """Three masks; the one square of mask i begins in row and column i + 1."""
    folder = tmp_path / "masks"
    folder.mkdir()
    for i, (height, width) in enumerate([(32, 32), (32, 32), (16, 48)]):
        labels = np.zeros((height, width), np.uint16)
        labels[i + 1 : i + 9, i + 1 : i + 9] = 7
        (folder / f"m{i}.png").write_bytes(png_bytes(labels))
    return folder


def composed(manifest: Manifest, *groups: GroupRequest, seed: int = 5, batch: int | None = None) -> list[ComposedGroup]:
    return compose(manifest, SetRequest(groups, seed), batch)


def test_guidance_is_the_group_s_else_the_bundle_s(manifest: Manifest) -> None:
    tuned = replace(manifest, guidance=Guidance(colour=0.5))
    groups = (INVENT, replace(INVENT, guidance=Guidance(text=1)), replace(INVENT, guidance=Guidance()))
    assert [g.guidance for g in composed(tuned, *groups)] == [Guidance(colour=0.5), Guidance(text=1), Guidance()]
    assert composed(manifest, INVENT)[0].guidance == Guidance()


def test_one_numbering_runs_through_all_groups(manifest: Manifest, mask_folder: Path) -> None:
    groups = composed(manifest, INVENT, GroupRequest(Masks(mask_folder)), GroupRequest(Layout("round"), count=4))
    assert [(group.first, group.count) for group in groups] == [(0, 2), (2, 3), (5, 4)]
    assert [pair.index for group in groups for pair in group.pairs()] == list(range(9))
    assert [pair.index for group in groups for pair in group.pairs(done={0, 3, 8})] == [1, 2, 4, 5, 6, 7]


def test_a_group_has_its_own_seed_or_that_of_the_set(manifest: Manifest) -> None:
    groups = composed(manifest, INVENT, replace(INVENT, seed=9), replace(INVENT, seed=0))
    assert [{pair.seed for pair in group.pairs()} for group in groups] == [{5}, {9}, {0}]


def test_layouts_differ_by_seed_and_number_and_do_not_depend_on_the_group(manifest: Manifest) -> None:
    layout = GroupRequest(Layout("round"), count=2)
    one, other = composed(manifest, replace(layout, count=4))[0], composed(manifest, INVENT, layout)[1]
    maps = [drawn(pair) for pair in one.pairs()]
    assert all(not np.array_equal(maps[i], maps[j]) for i in range(4) for j in range(i))
    for pair in other.pairs():  # pairs 2 and 3 again, in another group
        assert np.array_equal(drawn(pair), maps[pair.index])
    reseeded = composed(manifest, replace(layout, seed=6))[0]
    assert not np.array_equal(drawn(next(reseeded.pairs())), maps[0])


def test_masks_go_round_in_the_order_of_their_names(manifest: Manifest, mask_folder: Path) -> None:
    (group,) = composed(manifest, GroupRequest(Masks(mask_folder), count=7))
    pairs = list(group.pairs())
    assert [pair.morphology for pair in pairs] == [f"mask m{i % 3}.png" for i in range(7)]
    for i, pair in enumerate(pairs):
        ys, xs = np.nonzero(drawn(pair))
        assert (ys.min(), xs.min(), drawn(pair).max()) == (i % 3 + 1, i % 3 + 1, 1)
        assert (pair.height_px, pair.width_px) == ((16, 48) if i % 3 == 2 else (32, 32))
    # Masks are counted from the group's own first pair.
    assert [pair.morphology for pair in composed(manifest, INVENT, GroupRequest(Masks(mask_folder)))[1].pairs()] == [
        f"mask m{i}.png" for i in range(3)
    ]


def test_defaults_are_the_bundle_s(manifest: Manifest) -> None:
    (group,) = composed(manifest, INVENT)
    pair = group.pair(0)
    assert (pair.height_px, pair.width_px) == (manifest.sampling.size_px,) * 2
    assert group.sampling == manifest.sampling
    (group,) = composed(manifest, replace(INVENT, height_px=32, steps=2, solver="euler"), batch=7)
    assert (group.pair(0).height_px, group.pair(0).width_px) == (32, manifest.sampling.size_px)
    assert (group.sampling.steps, group.sampling.solver, group.sampling.batch) == (2, "euler", 7)


@pytest.mark.parametrize("kind", ["columnar", "gland"])
def test_a_layout_takes_the_preset_of_its_architecture(kind: str, manifest: Manifest) -> None:
    (group,) = composed(manifest, GroupRequest(Layout(kind), count=1, height_px=128, width_px=128))
    assert group.look.preset == "lilac-columnar"
    assert group.look.colour == manifest.presets["lilac-columnar"].colour
    assert group.look.metadata.description == "violet columnar nuclei"


def test_a_bundle_without_a_fitting_preset_leaves_it_out(manifest: Manifest) -> None:
    assert preset_for_layout(manifest, "spindle") is None
    (group,) = composed(manifest, GroupRequest(Layout("spindle"), count=1, height_px=128, width_px=128))
    assert group.look.preset is None and group.look.colour == Colour()


def test_what_is_given_goes_over_the_preset(manifest: Manifest) -> None:
    given = replace(
        INVENT, preset="lilac-round", colour=ColourChoice(GREY), metadata=Metadata(indication="colon", description="x")
    )
    look = composed(manifest, given)[0].look
    assert look.colour == Colour(GREY, manifest.presets["lilac-round"].colour.background)
    assert look.metadata == Metadata("", "colon", "x")
    look = composed(manifest, replace(given, metadata=Metadata(indication="colon")))[0].look
    assert look.metadata == Metadata("", "colon", "violet round nuclei")


def test_layout_nuclei_have_the_size_of_the_preset_s_unless_asked(manifest: Manifest) -> None:
    """Median area of the preset's tag ``small``, within what a median over some hundred drawn nuclei scatters."""
    base = GroupRequest(Layout("round", {"area_spread": 0.0, "crowding": 0.0}), count=4, height_px=256, width_px=256)
    for options, expected in (({}, AREA_OF_SIZE["small"]), ({"area_px": 500.0}, 500.0)):
        assert isinstance(base.morphology, Layout)
        layout = Layout("round", {**base.morphology.options, **options})
        pairs = composed(manifest, replace(base, morphology=layout))[0].pairs()
        areas = [np.bincount(drawn(pair).ravel())[1:] for pair in pairs]
        assert np.median(np.concatenate(areas)) == pytest.approx(expected, rel=0.15)


def test_jitter_is_bounded_spread_and_a_function_of_seed_and_number() -> None:
    colour = Colour(GREY, replace(GREY, mean=(2.0, 254.0, 100.0)))
    amount = 6.0
    moved = [jittered(colour, amount, seed, index) for seed in (1, 2) for index in range(200)]
    again = [jittered(colour, amount, seed, index) for seed in (1, 2) for index in range(200)]
    assert moved == again and len(set(moved)) == len(moved)
    regions = np.array([[c.foreground.mean, c.background.mean] for c in moved if c.foreground and c.background])
    assert colour.foreground is not None and colour.background is not None
    shifts = regions - np.array([colour.foreground.mean, colour.background.mean])
    assert np.abs(shifts).max() <= amount
    assert regions.min() >= 0 and regions.max() <= 255
    # Uniform in (-6, 6): each free channel comes near both ends and has mean 0 +- 4 standard errors (6 / sqrt(1200)).
    free = np.concatenate([shifts[:, 0], shifts[:, 1, 2:]], axis=1)
    assert (free.min(0) < -5.5).all() and (free.max(0) > 5.5).all()
    assert np.abs(free.mean(0)).max() < 4 * amount / np.sqrt(3 * len(free))
    # Channels are moved apart from one another: no two shifts agree.
    assert np.abs(np.corrcoef(free.T) - np.eye(4)).max() < 0.25  # 5 standard errors of 1 / sqrt(400)
    assert all(c.foreground and c.foreground.std == GREY.std for c in moved)


def test_no_jitter_leaves_the_colour_alone_and_absent_regions_absent() -> None:
    assert jittered(Colour(GREY), 0, 1, 1) == Colour(GREY)
    assert jittered(Colour(GREY), 5, 1, 1).background is None


def test_jitter_without_a_colour_is_an_error(manifest: Manifest) -> None:
    with pytest.raises(RequestError, match="colour jitter without a colour"):
        composed(manifest, replace(INVENT, colour=ColourChoice(jitter=3)))


def test_colour_from_a_picture(manifest: Manifest, tmp_path: Path) -> None:
    labels = np.zeros((32, 32), np.uint16)
    labels[:16] = 1
    picture = np.where(labels[:, :, None] > 0, (10, 20, 30), (200, 100, 50)).astype(np.uint8)
    for name, array in (("tile.png", picture), ("mask.png", labels), ("small.png", labels[:16])):
        (tmp_path / name).write_bytes(png_bytes(array))
    choice = ColourChoice(image=tmp_path / "tile.png", mask=tmp_path / "mask.png")
    look = composed(manifest, replace(INVENT, preset="lilac-round", colour=choice))[0].look
    zero = (0.0, 0.0, 0.0)
    assert look.colour == Colour(RegionColour((10.0, 20.0, 30.0), zero), RegionColour((200.0, 100.0, 50.0), zero))
    with pytest.raises(InputError, match=r"its mask .*small.png \(16, 32\)"):
        composed(manifest, replace(INVENT, colour=replace(choice, mask=tmp_path / "small.png")))


@pytest.mark.parametrize(
    ("group", "error", "message"),
    [
        (replace(INVENT, preset="lilac-rond"), RequestError, "did you mean 'lilac-round'"),
        (GroupRequest(Layout("round", {"count": 500}), count=1), RequestError, "too many for layout 'round'"),
        (GroupRequest(Masks(Path("nowhere"))), InputError, "mask folder nowhere cannot be read"),
        (replace(INVENT, colour=ColourChoice(image=Path("no.png"), mask=Path("no.png"))), InputError, "no such file"),
        (replace(INVENT, height_px=4096, width_px=4096, guidance=Guidance(1, 1, 1)), RequestError, "smaller --batch"),
    ],
)
def test_errors_name_the_group_where_there_are_several(
    group: GroupRequest, error: type[Exception], message: str, manifest: Manifest
) -> None:
    with pytest.raises(error, match=message) as alone:
        composed(manifest, group, batch=4)
    assert not str(alone.value).startswith("group")
    with pytest.raises(error, match="group 1: "):
        composed(manifest, INVENT, group, batch=4)


@pytest.mark.parametrize("batch", [0, -1, 1025])
def test_illegal_batches(batch: int, manifest: Manifest) -> None:
    with pytest.raises(RequestError, match="1 to 1024"):
        composed(manifest, INVENT, batch=batch)


def test_a_set_holds_ten_million_pairs_at_most_also_with_masks(manifest: Manifest, mask_folder: Path) -> None:
    with pytest.raises(RequestError, match="10000002 pairs"):
        composed(manifest, replace(INVENT, count=9_999_999), GroupRequest(Masks(mask_folder)))


def test_every_mask_is_read_before_anything_is_made(manifest: Manifest, mask_folder: Path) -> None:
    (mask_folder / "m2.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"m2\.png"):
        composed(manifest, GroupRequest(Masks(mask_folder), count=1))


def test_links_in_the_mask_folder_stay_below_the_root(manifest: Manifest, mask_folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.png"
    outside.write_bytes((mask_folder / "m0.png").read_bytes())
    (mask_folder / "m9.png").symlink_to(outside)
    assert composed(manifest, GroupRequest(Masks(mask_folder)))[0].count == 4  # a folder named on the command line
    assert composed(manifest, GroupRequest(Masks(mask_folder, tmp_path)))[0].count == 4
    with pytest.raises(InputError, match=r"m9\.png is a link that leaves"):
        composed(manifest, GroupRequest(Masks(mask_folder, mask_folder)))
    (mask_folder / "m9.png").unlink()
    (mask_folder / "m9.png").symlink_to("m9.png")
    with pytest.raises(InputError, match=r"m9\.png"):
        composed(manifest, GroupRequest(Masks(mask_folder, mask_folder)))


def test_the_masks_hash_follows_names_and_labels_of_the_masks_used(
    manifest: Manifest, mask_folder: Path, tmp_path: Path
) -> None:
    def sha256(count: int | None = None, folder: Path = mask_folder) -> str | None:
        return composed(manifest, GroupRequest(Masks(folder), count=count))[0].masks_sha256

    first, of_two = sha256(), sha256(2)
    assert first != of_two and sha256(9) == first
    labels = np.zeros((16, 48), np.uint16)
    labels[3:11, 3:11] = 7
    (mask_folder / "m2.png").write_bytes(png_bytes(labels, {"Comment": "the same labels in other bytes"}))
    assert sha256() == first
    labels[3, 3] = 0
    (mask_folder / "m2.png").write_bytes(png_bytes(labels))
    assert sha256() != first and sha256(2) == of_two
    (mask_folder / "m1.png").rename(mask_folder / "m1b.png")
    assert sha256(2) != of_two
    assert composed(manifest, INVENT)[0].masks_sha256 is None


@pytest.mark.parametrize("count", [1, 2, 3, 5, 7, 12])
def test_work_is_what_the_engine_computes(
    count: int, mask_folder: Path, fake_engine: Engine, fake_backend: Any
) -> None:
    """Masks of sizes a, a, b, in turns: pairs, and places in batches, counted where the engine runs them."""
    request = SetRequest((GroupRequest(Masks(mask_folder), count=count, steps=1),))
    (group,) = compose(fake_engine.bundle.manifest, request, 2)
    list(fake_engine.sample(group.pairs(), group.sampling, group.guidance))
    runs = [inputs["state"].shape for graph, inputs in fake_backend.calls if graph == "denoiser"]
    computed: dict[tuple[int, int], int] = {}
    for batch, _, height, width in runs:
        computed[height, width] = computed.get((height, width), 0) + batch
    sizes = [(pair.height_px, pair.width_px) for pair in group.pairs()]
    assert group.work == {size: (sizes.count(size), computed[size]) for size in sizes}
    assert len(runs) == sum(-(-sizes.count(size) // 2) for size in set(sizes))  # one short batch of a size at most


def test_more_pairs_at_the_end_change_none_of_the_first_ones(manifest: Manifest) -> None:
    few = composed(manifest, GroupRequest(Layout("round"), count=2, colour=ColourChoice(jitter=5)))[0]
    more = composed(manifest, GroupRequest(Layout("round"), count=3, colour=ColourChoice(jitter=5)))[0]
    for a, b in zip(few.pairs(), more.pairs(), strict=False):
        assert (a.index, a.seed, a.colour, a.metadata) == (b.index, b.seed, b.colour, b.metadata)
        assert np.array_equal(drawn(a), drawn(b))


def test_a_layout_without_room_is_drawn_again_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def draw(request: LayoutRequest) -> np.ndarray:
        asked.append(request.index)
        if len(asked) < 3:
            raise RequestError("no room")
        return np.ones((64, 64), np.uint16)

    monkeypatch.setattr(msdm_engine.requests.compose, "draw_layout", draw)
    look = msdm_engine.requests.compose.Appearance(Colour(), Metadata(), None, None)
    draw_pair = msdm_engine.requests.compose._layout_drawer(Layout("round"), 64, 64, 0, look)
    assert draw_pair(5)[1] == ", attempt 3"
    assert asked == [5, 5 + 2**32, 5 + 2**33]
    monkeypatch.setattr(msdm_engine.requests.compose, "draw_layout", lambda request: draw_never())
    with pytest.raises(RequestError, match="no room"):
        draw_pair(6)


def draw_never() -> np.ndarray:
    """A layout that never finds room."""
    raise RequestError("no room")
