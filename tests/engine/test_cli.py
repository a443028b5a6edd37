"""``msdm-engine`` as a stranger meets it: what it writes, and that an error writes nothing."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result

from msdm_engine import Bundle, errors
from msdm_engine.cli import main
from msdm_engine.cli_errors import INTERRUPTED
from msdm_engine.contract import DENOISER
from msdm_engine.errors import MsdmError
from msdm_engine.inputs.masks import read_instances, read_rgb

Run = Callable[..., Result]


@pytest.fixture
def run(bundle_folder: Path, fake_backend: Any, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command on the bundle of the tests and the backend in memory."""
    monkeypatch.setattr("msdm_engine.engine.open_backend", lambda name, bundle, **_: fake_backend)

    def invoke(command: str, *arguments: object, bundle: Path = bundle_folder) -> Result:
        return CliRunner().invoke(main, [command, "--bundle", str(bundle), *map(str, arguments)])

    return invoke


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    """Three masks of two sizes."""
    folder = tmp_path / "masks"
    folder.mkdir()
    for name, size in (("a", (32, 48)), ("b", (40, 40)), ("c", (32, 48))):
        labels = np.zeros(size, np.uint8)
        labels[4:12, 5:15], labels[20:25, 20:25] = 7, 9
        cv2.imwrite(str(folder / f"{name}.png"), labels)
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def succeeded(result: Result) -> Result:
    assert result.exit_code == 0, result.output
    return result


# --- what is written -------------------------------------------------------------------------------------------


def test_pairs_of_a_layout_twice_are_equal_to_the_byte(run: Run, tmp_path: Path) -> None:
    for name in ("A", "B"):
        succeeded(run("sample", "--layout", "columnar", "--count", 3, "--seed", 1, "--out", tmp_path / name))
    first, second = files(tmp_path / "A"), files(tmp_path / "B")
    pictures = {f"{kind}/00000{i}.png" for kind in ("images", "masks") for i in range(3)}
    assert set(first) == {"set.json", "manifest.jsonl", "contact_sheet.png"} | pictures
    assert first == second


def test_another_seed_gives_other_layouts(run: Run, tmp_path: Path) -> None:
    for seed in (1, 2):
        succeeded(run("sample", "--layout", "round", "--count", 1, "--seed", seed, "--out", tmp_path / str(seed)))
    first, second = (read_instances(tmp_path / seed / "masks" / "000000.png") for seed in ("1", "2"))
    assert not np.array_equal(first, second)


def test_pairs_follow_the_masks_of_a_folder_in_their_order(run: Run, tmp_path: Path, masks: Path) -> None:
    succeeded(run("sample", "--masks", masks, "--out", tmp_path / "out"))
    records = [json.loads(line) for line in (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()]
    assert [record["index"] for record in records] == [0, 1, 2]
    for record, name in zip(records, "abc", strict=True):
        assert f"{name}.png" in record["morphology"]
        assert record["nuclei"] == 2
        expected = read_instances(masks / f"{name}.png")
        assert np.array_equal(read_instances(tmp_path / "out" / record["mask"]), expected)
        assert read_rgb(tmp_path / "out" / record["image"]).shape[:2] == expected.shape


def test_masks_go_round_where_more_pairs_are_asked_for(run: Run, tmp_path: Path, masks: Path) -> None:
    succeeded(run("sample", "--masks", masks, "--count", 5, "--out", tmp_path / "out"))
    fourth, first = (read_instances(tmp_path / "out" / "masks" / f"00000{i}.png") for i in (3, 0))
    assert np.array_equal(fourth, first)
    assert len(list((tmp_path / "out" / "images").iterdir())) == 5


def test_an_invented_layout(run: Run, tmp_path: Path) -> None:
    succeeded(run("sample", "--invent", "--count", 1, "--size", 48, "--out", tmp_path / "out"))
    assert read_instances(tmp_path / "out" / "masks" / "000000.png").shape == (48, 48)


def test_an_empty_folder_may_be_written_into(run: Run, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    succeeded(run("sample", "--layout", "round", "--count", 1, "--out", tmp_path / "out"))


def test_the_set_says_what_made_it_and_no_path_of_the_machine(run: Run, tmp_path: Path, masks: Path) -> None:
    cv2.imwrite(str(tmp_path / "look.png"), np.full((32, 48, 3), 90, np.uint8))
    colour = ("--colour-from", tmp_path / "look.png", "--colour-mask", masks / "a.png")
    succeeded(run("sample", "--masks", masks, *colour, "--out", tmp_path / "out"))
    text = (tmp_path / "out" / "set.json").read_text() + (tmp_path / "out" / "manifest.jsonl").read_text()
    assert str(tmp_path) not in text
    assert "CC0-1.0" in text
    assert "not for diagnosis" in text


def test_the_summary_says_how_many_how_fast_and_where(run: Run, tmp_path: Path) -> None:
    result = succeeded(run("sample", "--layout", "round", "--count", 2, "--out", tmp_path / "out"))
    assert "2 pairs in" in result.stdout
    assert "pairs/s" in result.stdout
    assert str(tmp_path / "out" / "contact_sheet.png") in result.stdout


# --- errors: an exit code and a message of their own, and nothing written --------------------------------------

LAYOUT = ("--layout", "columnar", "--count", 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--layout", "colunar", "--count", 1), "unknown layout 'colunar'"),
        ((*LAYOUT, "--preset", "lilac-colunar"), "unknown preset 'lilac-colunar'"),
        ((*LAYOUT, "--solver", "dpmpp-2s"), "unknown solver 'dpmpp-2s'"),
        ((*LAYOUT, "--steps", 0), "0"),
        ((*LAYOUT, "--batch", 0), "batch 0"),
        ((*LAYOUT, "--seed", -1), "-1"),
        ((*LAYOUT, "--seed", 2**64), str(2**64)),
        ((*LAYOUT, "--size", 0), "0"),
        ((*LAYOUT, "--size", 5000), "5000"),
        ((*LAYOUT, "--area", 0), "area_px is 0"),
        (("--layout", "columnar", "--count", 0), "count is 0"),
        (("--invent", "--count", 1, "--size", 15), "15"),
        ((*LAYOUT, "--description", "violet " * 30), "30 tokens is too long"),
        ((*LAYOUT, "--invent"), "not clear"),
        ((), "not clear"),
        ((*LAYOUT, "--colour-from", "look.png"), "needs the picture and its mask"),
    ],
)
def test_an_illegal_request(run: Run, tmp_path: Path, arguments: tuple[object, ...], message: str) -> None:
    result = run("sample", *arguments, "--out", tmp_path / "out")
    assert result.exit_code == errors.RequestError.exit_code
    assert message in result.stderr
    assert result.stderr.startswith("error: ")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("word", "nearest"), [("colunar", "columnar"), ("lilac-colunar", "lilac-columnar"), ("dpmpp-2n", "dpmpp-2m")]
)
def test_an_unknown_word_names_the_nearest(run: Run, tmp_path: Path, word: str, nearest: str) -> None:
    option = {"colunar": "--layout", "lilac-colunar": "--preset", "dpmpp-2n": "--solver"}[word]
    layout = () if option == "--layout" else ("--layout", "columnar")
    result = run("sample", *layout, option, word, "--out", tmp_path / "out")
    assert f"did you mean '{nearest}'" in result.stderr


def test_an_empty_mask_folder(run: Run, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    result = run("sample", "--masks", tmp_path / "none", "--out", tmp_path / "out")
    assert result.exit_code == errors.InputError.exit_code
    assert "holds no mask" in result.stderr
    assert not (tmp_path / "out").exists()


def test_an_unreadable_mask_folder(run: Run, tmp_path: Path) -> None:
    result = run("sample", "--masks", tmp_path / "nowhere", "--out", tmp_path / "out")
    assert result.exit_code == errors.InputError.exit_code
    assert "nowhere cannot be read" in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("damage", [b"no picture", b"", None])
def test_an_unreadable_mask_among_good_ones(run: Run, tmp_path: Path, masks: Path, damage: bytes | None) -> None:
    whole = (masks / "b.png").read_bytes()
    (masks / "b.png").write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    result = run("sample", "--masks", masks, "--out", tmp_path / "out")
    assert result.exit_code == errors.InputError.exit_code
    assert "b.png cannot be read" in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_damaged_bundle(run: Run, tmp_path: Path, bundle_folder: Path) -> None:
    (bundle_folder / "denoiser.onnx").write_bytes(b"graph denoisex")
    result = run("sample", *LAYOUT, "--out", tmp_path / "out")
    assert result.exit_code == errors.BundleError.exit_code
    assert "denoiser.onnx does not have the SHA-256" in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_missing_bundle(run: Run, tmp_path: Path) -> None:
    result = run("sample", *LAYOUT, "--out", tmp_path / "out", bundle=tmp_path / "nowhere")
    assert result.exit_code == errors.BundleError.exit_code
    assert "is not a bundle" in result.stderr
    assert not (tmp_path / "out").exists()


def test_an_unknown_backend(bundle_folder: Path, tmp_path: Path) -> None:
    arguments = ["sample", "--bundle", str(bundle_folder), *map(str, LAYOUT), "--backend", "onnx", "--out"]
    result = CliRunner().invoke(main, [*arguments, str(tmp_path / "out")])
    assert result.exit_code == errors.RequestError.exit_code
    assert "unknown backend 'onnx'" in result.stderr
    assert not (tmp_path / "out").exists()


def test_graphs_that_are_no_onnx(bundle_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="needs the extra cpu or gpu")
    arguments = ["sample", "--bundle", str(bundle_folder), *map(str, LAYOUT), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == errors.BackendError.exit_code
    assert "the graph 'text_encoder' cannot be loaded: it is no ONNX model" in result.stderr
    assert not (tmp_path / "out").exists()


def test_an_output_that_holds_something_is_left_alone(run: Run, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious.txt").write_text("data")
    result = run("sample", *LAYOUT, "--out", tmp_path / "out")
    assert result.exit_code == errors.OutputError.exit_code
    assert "exists and is not empty" in result.stderr
    assert files(tmp_path / "out") == {"precious.txt": b"data"}


def test_an_output_that_is_a_file_is_left_alone(run: Run, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("data")
    result = run("sample", *LAYOUT, "--out", tmp_path / "out")
    assert result.exit_code == errors.OutputError.exit_code
    assert (tmp_path / "out").read_text() == "data"


def test_a_value_that_is_not_finite_leaves_whole_pairs_only(run: Run, tmp_path: Path, fake_backend: Any) -> None:
    fake_backend.poison = {(DENOISER, 5): 1}  # three steps a batch of two: pair 3 in the second batch, step 2
    result = run("sample", "--layout", "round", "--count", 6, "--out", tmp_path / "out")
    assert result.exit_code == errors.NumericsError.exit_code
    assert f"graph '{DENOISER}'" in result.stderr
    assert "pair 3, seed 0, step 2 of 3" in result.stderr
    made = {name for name in files(tmp_path / "out") if name.startswith(("images", "masks"))}
    assert made == {"images/000000.png", "masks/000000.png", "images/000001.png", "masks/000001.png"}
    records = (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()
    assert [json.loads(line)["index"] for line in records] == [0, 1]


def test_a_mask_that_goes_away_midway_leaves_whole_pairs_only(
    run: Run, tmp_path: Path, masks: Path, fake_backend: Any
) -> None:
    whole = fake_backend.run

    def then_remove(graph: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        (masks / "c.png").unlink(missing_ok=True)
        outputs: dict[str, np.ndarray] = whole(graph, inputs)
        return outputs

    fake_backend.run = then_remove
    # Three masks of several sizes in turns: more pairs than the sampler looks ahead for.
    result = run("sample", "--masks", masks, "--count", 60, "--out", tmp_path / "out")
    assert result.exit_code == errors.InputError.exit_code
    assert "c.png cannot be read" in result.stderr
    records = [json.loads(line) for line in (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()]
    listed = {record[kind] for record in records for kind in ("image", "mask")}
    assert {name for name in files(tmp_path / "out") if name.startswith(("images", "masks"))} == listed
    numbers = [record["index"] for record in records]
    assert 2 <= len(numbers) < 60 and numbers == list(range(len(numbers)))
    assert len(numbers) % 3 == 2  # all that was asked for before a pair of the third mask


# --- exit codes, help, show ------------------------------------------------------------------------------------


def test_every_exit_code_is_its_own_and_documented() -> None:
    classes = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, MsdmError)]
    codes = {kind.exit_code for kind in classes if kind is not MsdmError}
    assert len(codes) == len(classes) - 1
    assert not codes & {0, 1}  # 1 is a bug, with its traceback
    told = CliRunner().invoke(main, ["--help"]).stdout.split("Exit codes")[1]
    assert codes | {0, INTERRUPTED} <= {int(number) for number in re.findall(r"\d+", told)}


def test_a_flag_that_does_not_exist_has_the_exit_code_of_an_illegal_request() -> None:
    assert CliRunner().invoke(main, ["sample", "--layuot", "round"]).exit_code == errors.RequestError.exit_code


def test_show_verifies_and_lists(run: Run) -> None:
    text = succeeded(run("show")).stdout
    assert "bundle fake" in text and "verified" in text
    assert "drawn, licence CC0-1.0" in text
    assert "dpmpp-2m, 3 steps, 64 px, batch 2" in text
    for name in ("text_encoder", "conditioner", "denoiser", "lilac-columnar", "lilac-round"):
        assert name in text


def test_show_refuses_a_damaged_bundle(run: Run, bundle_folder: Path) -> None:
    (bundle_folder / "tokenizer.json").unlink()
    result = run("show")
    assert result.exit_code == errors.BundleError.exit_code
    assert result.stdout == ""


# --- the reference bundle --------------------------------------------------------------------------------------


def test_the_reference_bundle_from_the_command_line(reference: Bundle, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="needs the extra cpu or gpu")
    small = ("--size", "64", "--area", "150", "--steps", "2", "--batch", "2", "--threads", "1", "--quiet")
    for name, seed in (("A", "1"), ("B", "1"), ("C", "2")):
        arguments = ["sample", "--bundle", str(reference.folder), "--layout", "columnar", "--count", "3", *small]
        succeeded(CliRunner().invoke(main, [*arguments, "--seed", seed, "--out", str(tmp_path / name)]))
    first, second, other = (files(tmp_path / name) for name in "ABC")
    assert first == second
    pictures = [name for name in first if name.startswith("images")]
    assert len(pictures) == 3
    assert all(first[name] != other[name] for name in pictures)


# --- imports ---------------------------------------------------------------------------------------------------


def loaded_by(statement: str) -> set[str]:
    code = f"import sys; {statement}; print('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {module.split(".")[0] for module in done.stdout.split()}


def test_importing_the_engine_loads_next_to_nothing() -> None:
    assert not loaded_by("import msdm_engine") & {"numpy", "cv2", "onnxruntime", "tokenizers", "tqdm", "click", "yaml"}


def test_names_are_there_when_they_are_used() -> None:
    import msdm_engine

    assert all(getattr(msdm_engine, name).__name__ == name for name in msdm_engine.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        msdm_engine.nothing  # noqa: B018


def test_help_needs_no_runtime() -> None:
    statement = (
        "from click.testing import CliRunner; from msdm_engine.cli import main; CliRunner().invoke(main, ['--help'])"
    )
    assert not loaded_by(statement) & {"onnxruntime", "torch", "cv2"}
