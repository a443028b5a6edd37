"""A bundle is verified before it is used: each way to be broken has its own error."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from msdm_engine import Bundle, Engine
from msdm_engine.bundle.reader import command_that_makes, reference_bundle
from msdm_engine.conditions.metadata import TextTokenizer
from msdm_engine.errors import BundleError

Edit = Callable[[Callable[[dict[str, Any]], Any]], Path]

FILES = ["text_encoder.onnx", "conditioner.onnx", "denoiser.onnx", "tokenizer.json"]


def refused(folder: Path) -> BundleError:
    with pytest.raises(BundleError) as caught:
        Bundle.open(folder)
    return caught.value


def listed(name: str, data: bytes) -> Callable[[dict[str, Any]], None]:
    """Lists one more file in the manifest."""

    def change(raw: dict[str, Any]) -> None:
        raw["files"][name] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}

    return change


# --- whole -----------------------------------------------------------------------------------------------------


def test_a_whole_bundle_holds_the_verified_bytes(bundle_folder: Path) -> None:
    bundle = Bundle.open(bundle_folder)
    assert bundle.contents == {name: (bundle_folder / name).read_bytes() for name in FILES}
    assert bundle.graphs["denoiser"] == b"graph denoiser"
    assert bundle.tokenizer == (bundle_folder / "tokenizer.json").read_bytes()
    assert bundle.sha256 == hashlib.sha256((bundle_folder / "manifest.json").read_bytes()).hexdigest()


def test_a_path_may_be_text(bundle_folder: Path) -> None:
    assert Bundle.open(str(bundle_folder)).manifest == Bundle.open(bundle_folder).manifest


def test_the_default_is_the_reference_bundle(reference: Bundle) -> None:
    if not reference_bundle().exists():
        pytest.skip("the reference bundle is not in this checkout")
    assert Bundle.open().folder == reference_bundle()


def test_nothing_is_read_again_after_verification(bundle_folder: Path, fake_backend: Any) -> None:
    bundle = Bundle.open(bundle_folder)
    for name in FILES:
        (bundle_folder / name).write_bytes(b"changed after it was verified")
    with Engine(bundle, fake_backend) as engine:
        assert engine.tokenizer.encode("violet nuclei")[0].tolist() == [2, 5, 0, 0, 0, 0, 0, 0]


def test_a_file_in_a_folder_of_the_bundle_is_legal(edit_manifest: Edit) -> None:
    folder = edit_manifest(listed("plans/sm90.plan", b"plan"))
    (folder / "plans").mkdir()
    (folder / "plans" / "sm90.plan").write_bytes(b"plan")
    assert Bundle.open(folder).contents["plans/sm90.plan"] == b"plan"


# --- damaged files ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("place", [0, -1])
def test_a_flipped_byte_is_found(bundle_folder: Path, name: str, place: int) -> None:
    data = bytearray((bundle_folder / name).read_bytes())
    data[place] ^= 1
    (bundle_folder / name).write_bytes(data)
    error = refused(bundle_folder)
    assert name in error.what
    assert "SHA-256" in error.what


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(bundle_folder: Path, name: str) -> None:
    (bundle_folder / name).unlink()
    assert f"lacks the file {name}" in refused(bundle_folder).what


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"\0"])
def test_a_file_of_another_size_is_found_before_it_is_read(
    bundle_folder: Path, change: Callable[[bytes], bytes]
) -> None:
    path = bundle_folder / "denoiser.onnx"
    path.write_bytes(change(path.read_bytes()))
    error = refused(bundle_folder)
    assert f"{path.stat().st_size} bytes" in error.what
    assert f"{len(b'graph denoiser')}" in str(error.note)


def test_a_manifest_that_lists_a_wrong_size_is_refused(edit_manifest: Edit) -> None:
    folder = edit_manifest(lambda raw: raw["files"]["denoiser.onnx"].update(size=3))
    assert "says 3" in str(refused(folder).note)


def test_a_folder_in_place_of_a_file_is_no_file(bundle_folder: Path) -> None:
    (bundle_folder / "denoiser.onnx").unlink()
    (bundle_folder / "denoiser.onnx").mkdir()
    assert "lacks the file denoiser.onnx" in refused(bundle_folder).what


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_in_place_of_a_file_does_not_hang(bundle_folder: Path) -> None:
    for name in ("denoiser.onnx", "manifest.json"):
        (bundle_folder / name).unlink()
        os.mkfifo(bundle_folder / name)
        refused(bundle_folder)


def test_an_unreadable_file_is_named(bundle_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Path.open

    def denied(path: Path, *args: Any, **kwargs: Any) -> Any:
        if path.name == "denoiser.onnx":
            raise PermissionError(13, "Permission denied")
        return whole(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", denied)  # rights do not stop a test that runs as root
    assert "denoiser.onnx cannot be read: [Errno 13] Permission denied" in refused(bundle_folder).what


# --- paths -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["/etc/hostname", "../secret", "plans/../../secret", "..\\secret", "C:secret", ".", ""]
)
def test_a_path_that_leaves_the_folder_is_refused(edit_manifest: Edit, name: str) -> None:
    folder = edit_manifest(listed(name, b"secret"))
    (folder.parent / "secret").write_bytes(b"secret")
    error = refused(folder)
    assert f"'{name}' outside the bundle" in error.what


def test_a_link_that_leaves_the_folder_is_refused(edit_manifest: Edit) -> None:
    folder = edit_manifest(listed("link", b"secret"))
    (folder.parent / "secret").write_bytes(b"secret")
    (folder / "link").symlink_to(folder.parent / "secret")
    assert "link that leaves the bundle" in refused(folder).what


def test_a_file_below_a_linked_folder_outside_is_refused(edit_manifest: Edit) -> None:
    folder = edit_manifest(listed("plans/secret", b"secret"))
    (folder.parent / "elsewhere").mkdir()
    (folder.parent / "elsewhere" / "secret").write_bytes(b"secret")
    (folder / "plans").symlink_to(folder.parent / "elsewhere")
    assert "link that leaves the bundle" in refused(folder).what


def test_links_within_the_bundle_and_to_it_are_legal(edit_manifest: Edit) -> None:
    folder = edit_manifest(listed("same.onnx", b"graph denoiser"))
    (folder / "same.onnx").symlink_to("denoiser.onnx")
    (folder.parent / "current").symlink_to(folder)
    assert Bundle.open(folder.parent / "current").contents["same.onnx"] == b"graph denoiser"


def test_a_loop_of_links_is_refused(edit_manifest: Edit) -> None:
    folder = edit_manifest(listed("loop", b""))
    (folder / "loop").symlink_to("loop")
    refused(folder)


# --- graphs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("graph", ["text_encoder", "conditioner", "denoiser"])
def test_a_missing_graph_is_named(edit_manifest: Edit, graph: str) -> None:
    folder = edit_manifest(lambda raw: raw["graphs"].pop(graph))
    assert f"lacks the graph '{graph}'" in refused(folder).what


def test_a_graph_whose_file_is_not_listed_is_refused(edit_manifest: Edit) -> None:
    folder = edit_manifest(lambda raw: raw["graphs"].update(critic=raw["graphs"]["denoiser"] | {"file": "critic.onnx"}))
    error = refused(folder)
    assert "critic.onnx of the graph 'critic'" in error.what
    assert "denoiser.onnx" in str(error.note)


def test_a_bundle_without_tokenizer_is_refused(edit_manifest: Edit) -> None:
    assert "lacks tokenizer.json" in refused(edit_manifest(lambda raw: raw["files"].pop("tokenizer.json"))).what


@pytest.mark.parametrize(
    ("graph", "side"),
    [("text_encoder", "inputs"), ("conditioner", "inputs"), ("denoiser", "inputs"), ("denoiser", "outputs")],
)
def test_tensors_beyond_the_contract_are_refused(edit_manifest: Edit, graph: str, side: str) -> None:
    extra = {"name": "temperature", "dtype": "float32", "shape": [1]}
    error = refused(edit_manifest(lambda raw: raw["graphs"][graph][side].append(extra)))
    assert f"'{graph}'" in error.what
    assert f"{side} " in error.what
    assert "temperature" in error.what


def test_the_denoiser_takes_what_the_conditioner_gives(edit_manifest: Edit) -> None:
    error = refused(edit_manifest(lambda raw: raw["graphs"]["conditioner"]["outputs"].pop()))
    assert "'denoiser'" in error.what
    assert "map_features_0" in error.what


def test_a_broken_tokenizer_is_a_bundle_error() -> None:
    with pytest.raises(BundleError, match="tokenizer of the bundle cannot be read"):
        TextTokenizer(b'{"version": "1.0"}', 8)


# --- the manifest as a file ------------------------------------------------------------------------------------


def test_a_folder_without_manifest_is_no_bundle(tmp_path: Path) -> None:
    error = refused(tmp_path)
    assert "it has no manifest.json" in error.what
    assert "msdm-export" in str(error.hint)


def test_a_missing_folder_is_no_bundle(tmp_path: Path) -> None:
    assert "is not a bundle" in refused(tmp_path / "nowhere").what


def test_every_truncation_of_the_manifest_is_refused(bundle_folder: Path) -> None:
    path = bundle_folder / "manifest.json"
    text = path.read_text().rstrip()
    for length in range(0, len(text), 97):
        path.write_text(text[:length])
        assert "is not JSON" in refused(bundle_folder).what


def test_a_manifest_that_is_not_utf8_is_refused(bundle_folder: Path) -> None:
    path = bundle_folder / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b"fake", b"f\xe4ke"))
    assert "is not UTF-8" in refused(bundle_folder).what


def test_a_huge_manifest_is_not_parsed(bundle_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("msdm_engine.bundle.reader.MAX_MANIFEST_BYTES", 100)
    assert "larger than 100 bytes" in refused(bundle_folder).what


def test_deeply_nested_json_is_refused(bundle_folder: Path) -> None:
    (bundle_folder / "manifest.json").write_text("[" * 100_000)
    assert "is not JSON" in refused(bundle_folder).what


def test_more_bytes_than_the_limit_are_not_read(bundle_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("msdm_engine.bundle.reader.MAX_BUNDLE_BYTES", 100)
    assert "at most 100" in str(refused(bundle_folder).note)


def test_the_hash_of_the_bundle_is_that_of_the_manifest_text(edit_manifest: Edit, bundle_folder: Path) -> None:
    before = Bundle.open(bundle_folder).sha256
    raw = json.loads((bundle_folder / "manifest.json").read_text())
    assert raw["data"]["licence"] == "CC0-1.0"
    assert Bundle.open(edit_manifest(lambda raw: raw["data"].update(licence="none"))).sha256 != before


@pytest.mark.parametrize(
    ("precision", "command"),
    [("fp16", "msdm-export precision b --to fp16"), ("int8", "msdm-calibrate quantize b --to int8 --data PACK")],
)
def test_another_precision_is_added_by_the_stage_that_makes_it(precision: str, command: str) -> None:
    assert command_that_makes(precision, Path("b")) == command
