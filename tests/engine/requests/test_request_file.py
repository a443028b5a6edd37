"""Request files: every legal form, and every error with the key that it names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from msdm_engine.conditions.colour import RegionColour
from msdm_engine.conditions.metadata import Metadata
from msdm_engine.critic import Acceptance
from msdm_engine.errors import InputError, MsdmError, RequestError
from msdm_engine.inputs.masks import mask_files
from msdm_engine.requests.file import MAX_FILE_BYTES, load_request, parse_request
from msdm_engine.requests.request import ColourChoice, GroupRequest, Invent, Layout, Masks, SetRequest
from msdm_engine.sampling.guidance import Guidance

WHOLE = """
version: 1
seed: 5
groups:
  - morphology: {layout: columnar, area_px: 400, rows: 2}
    count: 8
    size: [128, 96]
    preset: lilac-columnar
    colour: {jitter: 6, foreground: {mean: [1, 2, 3], std: [4, 5, 6.5]}}
    metadata: {assay: H and E, indication: colon, description: "violet"}
    guidance: {text: 1, colour: 0.5, overall: 0.25, sigma_low: 0.1, sigma_high: 5}
    steps: 20
    solver: euler
    seed: 9
  - morphology: {masks: masks}
    colour: {image: a/tile.png, mask: a/mask.npy}
  - {morphology: invent, count: 1, size: 64.0, min_agreement: 0.8, max_redraws: 5}
"""


def one(group: str) -> str:
    """A file of one group in YAML's flow style."""
    return f"version: 1\ngroups: [{group}]"


def test_guidance_left_out_is_the_bundle_s_and_an_empty_one_is_none(tmp_path: Path) -> None:
    for text, expected in (("", None), (", guidance: {}", Guidance())):
        request = parse_request(one(f"{{morphology: invent, count: 1{text}}}"), root=tmp_path)
        assert request.groups[0].guidance == expected


def test_every_key(tmp_path: Path) -> None:
    first = GroupRequest(
        Layout("columnar", {"area_px": 400.0, "rows": 2}),
        count=8,
        height_px=128,
        width_px=96,
        preset="lilac-columnar",
        colour=ColourChoice(RegionColour((1.0, 2.0, 3.0), (4.0, 5.0, 6.5)), jitter=6.0),
        metadata=Metadata("H and E", "colon", "violet"),
        guidance=Guidance(1.0, 0.5, 0.25, 0.1, 5.0),
        seed=9,
        steps=20,
        solver="euler",
    )
    root = tmp_path.resolve()
    picture = ColourChoice(image=root / "a" / "tile.png", mask=root / "a" / "mask.npy")
    second = GroupRequest(Masks(root / "masks", tmp_path), colour=picture)
    third = GroupRequest(Invent(), count=1, height_px=64, width_px=64, acceptance=Acceptance(0.8, 5))
    assert parse_request(WHOLE, root=tmp_path) == SetRequest((first, second, third), seed=5)


def test_json_is_the_same_request(tmp_path: Path) -> None:
    import yaml

    text = json.dumps(yaml.safe_load(WHOLE), indent="\t")
    assert parse_request(text, root=tmp_path).sha256() == parse_request(WHOLE, root=tmp_path).sha256()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the request is empty"),
        ("[]", r"the request is \[\]"),
        ("groups: []", "lacks version"),
        ("version: 1", "lacks groups"),
        ("version: 2\ngroups: []", "this engine reads 1"),
        ("version: true\ngroups: []", "version is True"),
        ("version: '1'\ngroups: []", "version is '1'"),
        ("version: 1\ngroup: []", "did you mean 'groups'"),
        ("version: 1\ngroups: []", "0 groups"),
        ("version: 1\ngroups: {}", r"groups is \{\}"),
        ("version: 1\ngroups: 8", "a list of 1 to 1000 groups"),
        ("version: 1\nseed: 1.5\ngroups: [{morphology: invent, count: 1}]", "seed is 1.5"),
        ("version: 1\nseed: null\ngroups: [{morphology: invent, count: 1}]", "seed is None"),
        ("version: 1\n5: 1\ngroups: []", "unknown key '5'"),
        (one("invent"), "group 0: a group is 'invent'"),
        (one("{count: 1}"), "lacks morphology"),
        (one("{morphology: invent}"), "count is missing"),
        (one("{morphology: inventt, count: 1}"), "morphology is 'inventt'"),
        (one("{morphology: {}, count: 1}"), r"legal: \{masks: FOLDER\}"),
        (one("{morphology: {masks: a, count: 1}}"), "unknown key 'count' in morphology"),
        (one("{morphology: {masks: 3}}"), "masks is 3"),
        (one("{morphology: {masks: ''}}"), "masks is ''"),
        (one("{morphology: {layout: 1}, count: 1}"), "layout is 1"),
        (one("{morphology: {layout: colunar}, count: 1}"), "did you mean 'columnar'"),
        (one("{morphology: {layout: round, arae_px: 3}, count: 1}"), "did you mean 'area_px'"),
        (one("{morphology: {layout: round, area_px: many}, count: 1}"), "a finite number"),
        (one("{morphology: {layout: gland, rows: 1.5}, count: 1}"), "a whole number"),
        (one("{morphology: invent, count: true}"), "count is True"),
        (one("{morphology: invent, count: '8'}"), "count is '8'"),
        (one("{morphology: invent, count: 8.5}"), r"count is 8\.5"),
        (one("{morphology: invent, count: .nan}"), "count is nan"),
        (one("{morphology: invent, count: .inf}"), "count is inf"),
        (one("{morphology: invent, count: 1e400}"), "count is '1e400'"),  # YAML's 1e400 is a text
        (one("{morphology: invent, count: " + "9" * 60 + "}"), "count is 9999"),
        (one("{morphology: invent, count: 1, size: [1, 2, 3]}"), "a number of px, or"),
        (one("{morphology: invent, count: 1, size: null}"), "size is None"),
        (one("{morphology: invent, count: 1, size: [64, true]}"), "size is True"),
        (one("{morphology: invent, count: 1, size: 15}"), "height_px is 15"),
        (one("{morphology: invent, count: 1, preset: 3}"), "preset is 3"),
        (one("{morphology: invent, count: 1, preset: null}"), "preset is None"),
        (one("{morphology: invent, count: 1, color: {}}"), "did you mean 'colour'"),
        (one("{morphology: invent, count: 1, colour: null}"), "colour is empty"),
        (one("{morphology: invent, count: 1, colour: {jitter: .nan}}"), "jitter is nan"),
        (one("{morphology: invent, count: 1, colour: {jitter: yes}}"), "jitter is True"),
        (one("{morphology: invent, count: 1, colour: {foreground: {mean: [1, 2, 3]}}}"), "foreground lacks std"),
        (one("{morphology: invent, count: 1, colour: {foreground: {mean: [1, 2], std: [1, 2, 3]}}}"), "three numbers"),
        (one("{morphology: invent, count: 1, colour: {foreground: {mean: [1, 2, x], std: [1, 2, 3]}}}"), "mean is 'x'"),
        (one("{morphology: invent, count: 1, colour: {foreground: {mean: [1, 2, 256], std: [1, 2, 3]}}}"), "not legal"),
        (one("{morphology: invent, count: 1, colour: {image: a.png}}"), "the picture and its mask"),
        (one("{morphology: invent, count: 1, metadata: {organ: x}}"), "unknown key 'organ' in metadata"),
        (one("{morphology: invent, count: 1, metadata: {assay: null}}"), "assay is None"),
        (one("{morphology: invent, count: 1, metadata: {indication: no}}"), "put it into quotes"),
        (one("{morphology: invent, count: 1, guidance: {test: 1}}"), "did you mean 'text'"),
        (one("{morphology: invent, count: 1, guidance: {text: 21}}"), "guidance text is 21"),
        (one("{morphology: invent, count: 1, guidance: {text: -.inf}}"), "text is -inf"),
        (one("{morphology: invent, count: 1, guidance: {sigma_low: 2, sigma_high: 1}}"), "guidance interval"),
        (one("{morphology: invent, count: 1, steps: 0}"), "steps is 0"),
        (one("{morphology: invent, count: 1, solver: eule}"), "did you mean 'euler'"),
        ("version: 1\ngroups: [" + "{morphology: invent, count: 1}," * 1001 + "]", "1001 groups"),
        ("version: 1\ngroups: [" + "{morphology: invent, count: 10000000}," * 2 + "]", "at most 10000000 in a set"),
    ],
)
def test_every_error(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=message):
        parse_request(text, root=tmp_path)


def test_half_a_surrogate_pair_is_no_text(tmp_path: Path) -> None:
    for key in ("preset", "solver"):
        raw = {"version": 1, "groups": [{"morphology": "invent", "count": 1, key: "\ud800"}]}
        with pytest.raises(RequestError, match="not Unicode text"):
            parse_request(json.dumps(raw), root=tmp_path)


def test_an_error_names_its_group(tmp_path: Path) -> None:
    good, bad = "{morphology: invent, count: 1}", "{morphology: invent, count: 0}"
    with pytest.raises(RequestError, match="group 2: count is 0"):
        parse_request(f"version: 1\ngroups: [{good}, {good}, {bad}]", root=tmp_path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Has a link that leaves it, and one that leads to itself."""
    folder = tmp_path.resolve() / "root"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path)
    (folder / "loop").symlink_to(folder / "loop")
    return folder


def masks_of(path: str, root: Path) -> Path:
    raw = {"version": 1, "groups": [{"morphology": {"masks": path}}]}
    morphology = parse_request(json.dumps(raw), root=root).groups[0].morphology
    assert isinstance(morphology, Masks)
    return morphology.folder


@pytest.mark.parametrize("path", ["../masks", "/etc", "a/../../masks", "link", "link/masks", "a\0b", "", "\ud800"])
def test_paths_that_leave_the_root(path: str, root: Path) -> None:
    with pytest.raises(RequestError, match="masks"):
        masks_of(path, root)


@pytest.mark.parametrize("path", ["masks", "a/b/../c", ".", "..masks", "a\\..\\b"])
def test_paths_below_the_root(path: str, root: Path) -> None:
    assert masks_of(path, root).is_relative_to(root)


@pytest.mark.parametrize("path", ["loop", "loop/x", "x" * 5000, "x/" * 3000])
def test_paths_that_are_none_are_errors_now_or_when_they_are_read(path: str, root: Path) -> None:
    """Python 3.13 resolves a loop to itself, earlier versions refuse it."""

    def read() -> None:
        mask_files(masks_of(path, root))

    with pytest.raises(MsdmError):
        read()


def test_the_root_is_the_file_s_folder_or_the_one_that_is_named(tmp_path: Path) -> None:
    (tmp_path / "requests").mkdir()
    file = tmp_path / "requests" / "request.yaml"
    file.write_text(one("{morphology: {masks: ../masks}}"))
    with pytest.raises(RequestError, match="--root"):
        load_request(file)
    file.write_text(one("{morphology: {masks: masks}}"))
    root = tmp_path.resolve()
    assert load_request(file).groups[0].morphology == Masks(root / "requests" / "masks", file.parent)
    assert load_request(file, root=tmp_path).groups[0].morphology == Masks(root / "masks", tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b"\xff\xfe", "not UTF-8 text"),
        (b"#" * (MAX_FILE_BYTES + 1), "more than 1048576 bytes"),
    ],
)
def test_files_that_cannot_be_read(content: bytes | None, message: str, tmp_path: Path) -> None:
    file = tmp_path / "request.yaml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError, match=message):
        load_request(file)
    with pytest.raises(InputError, match="not a file"):
        load_request(tmp_path)


def test_messages_cannot_steer_a_terminal(tmp_path: Path) -> None:
    raw = {"version": 1, "groups": [], "\x1b[2J\u202e\ud800": 1}
    with pytest.raises(MsdmError) as caught:
        parse_request(json.dumps(raw), root=tmp_path)
    assert r"'\x1b[2J\u202e\ud800'" in str(caught.value)
    assert all(c.isprintable() or c == "\n" for c in str(caught.value))
