from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import save_file

from msdm_engine.conditions.maps import maps_from_instances
from msdm_engine.errors import InputError
from msdm_train.cli import main
from msdm_train.data.pack import Pack, write_pack
from msdm_train.data.reader import Field, Region


def test_round_trip(draw_field: Callable[..., Field], pack_of: Callable[..., Path]) -> None:
    first, second = draw_field("a", "train", 64), draw_field("b", "test", 32, seed=1)
    pack = Pack(pack_of(first, second))
    assert (pack.info.name, pack.info.licence, pack.info.source) == ("drawn", "CC0-1.0", "made by a test")
    assert [(f.id, f.split, f.height_px, f.width_px, f.nuclei) for f in pack.info.fields] == [
        ("a", "train", 64, 64, 16),
        ("b", "test", 32, 32, 4),
    ]
    assert pack.info.fields[0].regions == first.regions
    assert [f.id for f in pack.split("test")] == ["b"]
    assert pack.split("val") == ()
    image, instances = pack.window("a", 3, 5, 40, 60)
    np.testing.assert_array_equal(image, first.image[3:40, 5:60])
    np.testing.assert_array_equal(instances, first.instances[3:40, 5:60])


def test_statistics_are_those_of_the_train_regions(
    draw_field: Callable[..., Field], pack_of: Callable[..., Path]
) -> None:
    """Left out: what lies in a hole, and every pixel of val and test."""
    hole = draw_field("a", "train", 64)
    parts = tuple(Region(y, x, y + 32, x + 32, {"stain": "s"}, "d") for y, x in ((0, 0), (0, 32), (32, 0)))
    hole.image[32:, 32:] = 0
    whole, other = draw_field("b", "train", 32, seed=1, description="e"), draw_field("c", "val", 32, seed=2)
    found = Pack(pack_of(replace(hole, regions=parts), whole, other)).info.statistics
    cuts = [(hole.image[r.y0 : r.y1, r.x0 : r.x1], hole.instances[r.y0 : r.y1, r.x0 : r.x1]) for r in parts]
    cuts.append((whole.image, whole.instances))
    state = np.concatenate(
        [np.concatenate([i / 127.5 - 1, maps_from_instances(m).transpose(1, 2, 0)], 2).reshape(-1, 6) for i, m in cuts]
    )
    # float64 throughout; the variance is a difference of sums of 10^4 terms of size one.
    np.testing.assert_allclose(found["state_mean"], state.mean(0), rtol=0, atol=1e-10)
    np.testing.assert_allclose(found["state_std"], state.std(0), rtol=0, atol=1e-10)
    assert set(found["presets"]) == {"d", "e"}
    assert found["presets"]["d"]["tiles"] == 3
    assert found["presets"]["d"]["tags"] == {"stain": "s"}
    inside = whole.image[whole.instances > 0].astype(float)
    # Presets are rounded to hundredths.
    np.testing.assert_allclose(found["presets"]["e"]["foreground"]["mean"], inside.mean(0), atol=0.0051)
    np.testing.assert_allclose(found["presets"]["e"]["foreground"]["std"], inside.std(0), atol=0.0051)


def test_a_worker_process_opens_the_file_anew(opened_pack: Pack) -> None:
    copy = pickle.loads(pickle.dumps(opened_pack))
    assert copy.info == opened_pack.info
    np.testing.assert_array_equal(copy.window("t1", 0, 0, 9, 9)[0], opened_pack.window("t1", 0, 0, 9, 9)[0])


def test_a_source_without_train_or_without_nuclei(
    draw_field: Callable[..., Field], pack_of: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="no field in the split train"):
        pack_of(draw_field("a", "val"))
    empty = draw_field("a", "train")
    with pytest.raises(InputError, match="do not vary in foreground, horizontal, vertical"):
        pack_of(replace(empty, instances=np.zeros_like(empty.instances)))
    assert list(tmp_path.iterdir()) == []


def test_a_source_that_breaks_off_leaves_the_old_pack(draw_field: Callable[..., Field], tmp_path: Path) -> None:
    class Broken:
        name, licence, source = "broken", "", ""

        def fields(self) -> Iterator[Field]:
            yield draw_field("a", "train")
            raise InputError("file x cannot be read")

    path = tmp_path / "pack.safetensors"
    path.write_bytes(b"old")
    with pytest.raises(InputError, match="file x"):
        write_pack(Broken(), path)
    assert path.read_bytes() == b"old"


def test_what_is_no_pack_is_named(tmp_path: Path) -> None:
    path = tmp_path / "p.safetensors"
    with pytest.raises(InputError, match=r"p\.safetensors is not a packed data set"):
        Pack(path)
    path.write_text("text")
    with pytest.raises(InputError, match=r"p\.safetensors is not a packed data set"):
        Pack(path)
    save_file({"x": np.zeros(1)}, path)
    with pytest.raises(InputError, match="is not a packed data set"):
        Pack(path)
    save_file({"x": np.zeros(1)}, path, metadata={"msdm": json.dumps({"format": 99})})
    with pytest.raises(InputError, match="unknown format version"):
        Pack(path)


def test_the_command_packs_a_folder(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for name in ("a", "b"):
        for kind in ("images", "masks"):
            (source / name / kind).mkdir(parents=True)
        image = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
        mask = np.zeros((24, 24), np.uint8)
        mask[4:12, 4:12] = 255
        cv2.imwrite(str(source / name / "images" / f"{name}.png"), image)
        cv2.imwrite(str(source / name / "masks" / "0.png"), mask)
    (tmp_path / "s.csv").write_text("id,field,split\na,f1,train\nb,f2,val\n")
    out = tmp_path / "deep" / "pack.safetensors"
    command = ["prepare", str(source), "--out", str(out), "--layout", "bbbc038", "--splits", str(tmp_path / "s.csv")]
    command += ["--licence", "CC0-1.0", "--name", "two", "--source-text", "drawn"]
    result = CliRunner().invoke(main, command, catch_exceptions=False)
    assert result.exit_code == 0
    assert "train    1 fields      1 nuclei" in result.output
    info = Pack(out).info
    assert (info.name, info.licence, info.source) == ("two", "CC0-1.0", "drawn")
    result = CliRunner().invoke(main, ["prepare", str(tmp_path / "none"), "--out", str(out), "--licence", "x"])
    assert result.exit_code == InputError.exit_code
    assert "is not a folder" in result.output
