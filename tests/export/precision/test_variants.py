"""Typed graphs of the tiny bundle: written, chosen, refused."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from msdm_engine import Bundle, Engine, PairRequest
from msdm_engine.bundle.folder import add_to_bundle, claimed, entry_of, write_new
from msdm_engine.bundle.manifest import MANIFEST, Manifest
from msdm_engine.bundle.reader import reference_bundle
from msdm_engine.contract import CONDITIONER, DENOISER
from msdm_engine.errors import BackendError, BundleError, OutputError, RequestError
from msdm_export.cli import main
from msdm_export.precision.variants import add_precision, source_models


@pytest.fixture
def copy(typed_bundle: Path, tmp_path: Path) -> Path:
    """A copy of the bundle with FP16 and BF16 graphs."""
    return Path(shutil.copytree(typed_bundle, tmp_path / "copy"))


def test_handed_on_tensors_are_half_and_the_engine_s_own_float32(typed_bundle: Path) -> None:
    manifest = Bundle.open(typed_bundle).manifest
    conditioner = manifest.graphs[CONDITIONER].variants["fp16"]
    denoiser = manifest.graphs[DENOISER].variants["fp16"]
    assert {tensor.dtype for tensor in conditioner.outputs} == {"float16"}
    given = {tensor.name: tensor.dtype for tensor in denoiser.inputs}
    assert all(given[tensor.name] == "float16" for tensor in conditioner.outputs)
    assert {given[name] for name in ("state", "denoised_prev", "noise", "row", "guidance")} == {"float32"}
    assert {tensor.dtype for tensor in denoiser.outputs} == {"float32"}
    # NumPy has no bfloat16, so between graphs there is none.
    assert {tensor.dtype for tensor in manifest.graphs[CONDITIONER].variants["bf16"].outputs} == {"float32"}


def test_the_bundle_that_ships_is_not_written_into() -> None:
    result = CliRunner().invoke(main, ["precision", str(reference_bundle()), "--to", "fp16"])
    assert result.exit_code == RequestError.exit_code
    assert "graphs in another precision for the bundle that ships with msdm" in result.output
    assert "--out FOLDER" in result.output


def test_each_exception_has_its_reason(typed_bundle: Path) -> None:
    for spec in Bundle.open(typed_bundle).manifest.graphs.values():
        details = spec.variants["fp16"].details
        assert all(entry["reason"] and entry["nodes"] for entry in details["float32"])
        assert sum(len(entry["nodes"]) for entry in details["float32"]) == details["nodes"]["float32_by_rule"]
    mask = Bundle.open(typed_bundle).manifest.graphs["text_encoder"].variants["fp16"].details["float32"]
    # BERT masks with the lowest float32, which half cannot hold: found by measurement.
    assert any("3.403e+38" in entry["reason"] for entry in mask if entry["rule"] == "range")


def test_the_engine_runs_the_fp16_graphs(typed_bundle: Path) -> None:
    request = PairRequest(0, 1, 64, 64)
    pictures = {}
    for precision in ("float32", "fp16"):
        with Engine.open(typed_bundle, threads=1, precision=precision) as engine:
            assert engine.backend.identity["precision"] == precision
            sampling = engine.bundle.manifest.sampling.changed(steps=2, batch=1)
            pictures[precision] = next(engine.sample([request], sampling)).image.astype(int)
    # Two steps of some twenty roundings of 2^-11 each move a value in [-1, 1] by about 1/255.
    assert np.abs(pictures["fp16"] - pictures["float32"]).max() <= 4


def test_a_precision_that_is_absent_says_the_command(bundle: Bundle) -> None:
    with pytest.raises(BundleError, match="has no fp16 graph") as caught:
        Engine.open(bundle, precision="fp16")
    assert caught.value.hint == f"msdm-export precision {bundle.folder} --to fp16"


def test_bfloat16_is_no_cpu_precision(typed_bundle: Path) -> None:
    with pytest.raises(BackendError, match="cannot load") as caught:
        Engine.open(typed_bundle, precision="bf16")
    assert "no bfloat16 arithmetic" in str(caught.value.hint)


def test_a_stale_variant_is_refused(copy: Path) -> None:
    raw = json.loads((copy / MANIFEST).read_text())
    raw["graphs"][DENOISER]["variants"]["fp16"]["source_sha256"] = "0" * 64
    (copy / MANIFEST).write_text(json.dumps(raw))
    with pytest.raises(BundleError, match="the fp16 graph 'denoiser' of bundle tiny is stale"):
        Engine.open(copy, precision="fp16")
    Engine.open(copy).close()  # the float32 graphs are what they were


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda variant: variant.update(file="gone.onnx"), "lacks the file gone.onnx of the fp16 graph"),
        (lambda variant: variant["inputs"].reverse(), "the fp16 graph 'denoiser' of .* has the inputs"),
        (lambda variant: variant.update(opset="20"), "opset is '20'"),
        (lambda variant: variant.update(colour=1), "unknown key 'colour'"),
    ],
)
def test_a_malformed_variant_is_refused(copy: Path, change: Callable[[dict[str, object]], None], match: str) -> None:
    raw = json.loads((copy / MANIFEST).read_text())
    change(raw["graphs"][DENOISER]["variants"]["fp16"])
    (copy / MANIFEST).write_text(json.dumps(raw))
    with pytest.raises(BundleError, match=match):
        Bundle.open(copy)


def test_a_manifest_without_variants_is_written_as_before(bundle: Bundle) -> None:
    assert "variants" not in bundle.manifest.to_json()
    assert Manifest.from_json(bundle.manifest.to_json()) == bundle.manifest


def test_a_bundle_whose_graphs_are_typed_is_no_source(typed_bundle: Path) -> None:
    opened = Bundle.open(typed_bundle)
    specs = opened.in_precision("fp16")
    graphs = {name: replace(spec, file=specs[name].file, variants={}) for name, spec in opened.manifest.graphs.items()}
    with pytest.raises(BundleError, match="is not float32"):
        source_models(replace(opened, manifest=replace(opened.manifest, graphs=graphs)))


def test_a_bundle_without_its_graph_is_refused(copy: Path) -> None:
    (copy / "denoiser.onnx").unlink()
    with pytest.raises(BundleError, match=r"lacks the file denoiser.onnx"):
        add_precision(copy, "fp16")


def test_unknown_precision_exits_with_the_request_s_code(bundle: Bundle) -> None:
    result = CliRunner().invoke(main, ["precision", str(bundle.folder), "--to", "fp61"])
    assert result.exit_code == RequestError.exit_code
    assert "did you mean 'fp16'" in result.output


def test_files_that_the_manifest_lists_no_more_are_removed(copy: Path) -> None:
    def forget(manifest: Manifest) -> Manifest:
        graphs = {name: replace(spec, variants={}) for name, spec in manifest.graphs.items()}
        kept = {name: entry for name, entry in manifest.files.items() if "16-" not in name}
        return replace(manifest, graphs=graphs, files=kept)

    add_to_bundle(copy, {}, forget)
    assert not [path.name for path in copy.iterdir() if "16-" in path.name]
    Bundle.open(copy)


def test_a_full_disk_leaves_the_bundle_as_it_was(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path.name: path.read_bytes() for path in copy.iterdir()}
    written = Path.open

    def full(path: Path, mode: str = "r", **options: object) -> object:
        if path.name == ".second.onnx.tmp":
            raise OSError(errno.ENOSPC, "No space left on device")
        return written(path, mode, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(OutputError, match="No space left on device"):
        add_to_bundle(copy, {"first.onnx": b"1", "second.onnx": b"2"}, lambda manifest: manifest)
    monkeypatch.undo()
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == before


def _hold(folder: Path, held: multiprocessing.synchronize.Event, done: multiprocessing.synchronize.Event) -> None:
    with claimed(folder):
        held.set()
        done.wait(60)


def test_two_writers_of_one_bundle_are_kept_apart(copy: Path) -> None:
    context = multiprocessing.get_context("fork")
    held, done = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(copy, held, done))
    other.start()
    try:
        assert held.wait(60)
        manifest = Manifest.from_json((copy / MANIFEST).read_text())
        with pytest.raises(OutputError, match="is being written by another process"):
            add_to_bundle(copy, {"x.onnx": b"x"}, lambda manifest: manifest)
        with pytest.raises(OutputError, match="is being written by another process"):
            write_new(copy, manifest, {})
    finally:
        done.set()
        other.join()
    assert "x.onnx" in add_to_bundle(copy, {"x.onnx": b"x"}, lambda manifest: manifest).files


def test_between_the_two_moves_the_old_bundle_is_not_lost(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, move = Bundle.open(copy), os.replace
    failing = [True]

    def once(source: Path, target: Path) -> None:
        if source.name == ".copy.tmp" and failing.pop():
            raise OSError(errno.EIO, "Input/output error")
        move(source, target)

    monkeypatch.setattr(os, "replace", once)
    with pytest.raises(OutputError, match="Input/output error"):
        write_new(copy, replace(before.manifest, name="new"), before.contents)
    assert Bundle.open(copy) == before
    assert [path.name for path in copy.parent.iterdir()] == ["copy"]
    # A process that is killed there cannot put it back; the next writer does, and its own failure loses nothing.
    move(copy, copy.with_name(".copy.old"))
    failing.append(True)
    with pytest.raises(OutputError, match="Input/output error"):
        write_new(copy, replace(before.manifest, name="new"), before.contents)
    assert Bundle.open(copy) == before


def test_what_an_interrupted_writer_left_is_cleared(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / ".new.tmp" / "half").mkdir(parents=True)
    write_new(tmp_path / "new", bundle.manifest, bundle.contents)
    assert [path.name for path in tmp_path.iterdir()] == ["new"]
    assert Bundle.open(tmp_path / "new").manifest == bundle.manifest
    assert entry_of(b"") == replace(entry_of(b""), size=0)
