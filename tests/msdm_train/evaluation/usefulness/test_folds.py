from __future__ import annotations

from pathlib import Path

import pytest

from msdm_engine.errors import InputError, RequestError
from msdm_train.data.pack import FieldInfo, Pack
from msdm_train.data.reader import Region
from msdm_train.evaluation.usefulness.folds import cells_of, is_columnar_field, share_of_fields
from msdm_train.evaluation.usefulness.subpack import open_subpack


def field(name: str, kind: str) -> FieldInfo:
    return FieldInfo(name, "train", 64, 64, 4, (Region(0, 0, 64, 64, {"architecture": kind}),))


def test_every_field_of_train_and_val_is_held_out_once_and_none_of_test(drawn_pack: Path) -> None:
    cells = cells_of(Pack(drawn_pack), 3, (1.0,))
    assert sorted(name for cell in cells for name in cell.held_out) == ["c1", "c2", "c3", "r1", "r2", "r3"]
    for cell in cells:
        assert not set(cell.train) & set(cell.held_out)
        assert set(cell.train) | set(cell.held_out) == {"c1", "c2", "c3", "r1", "r2", "r3"}
        assert any(name.startswith("c") for name in cell.held_out)


def test_cells_are_a_function_of_the_pack(drawn_pack: Path) -> None:
    assert cells_of(Pack(drawn_pack), 3, (0.5, 1.0)) == cells_of(Pack(drawn_pack), 3, (0.5, 1.0))


@pytest.mark.parametrize("fraction", [0.01, 0.25, 0.5, 0.75, 1.0])
def test_share_keeps_the_stated_number_and_both_kinds(fraction: float) -> None:
    fields = [field(f"c{i}", "columnar") for i in range(6)] + [field(f"r{i}", "round") for i in range(6)]
    kept = share_of_fields(fields, fraction, "salt")
    # 12 fields; at least one of each kind.
    assert len(kept) == max(2, round(12 * fraction))
    assert {name[0] for name in kept} == {"c", "r"}
    assert set(kept) <= set(share_of_fields(fields, 1.0, "salt")) == {f.id for f in fields}


def test_a_smaller_share_is_part_of_a_larger_one() -> None:
    fields = [field(f"c{i}", "columnar") for i in range(5)] + [field(f"r{i}", "round") for i in range(7)]
    shares = [set(share_of_fields(fields, fraction, "salt")) for fraction in (0.25, 0.5, 1.0)]
    assert shares[0] < shares[1] < shares[2]


@pytest.mark.parametrize("fraction", [0.0, -0.5, 1.5])
def test_share_out_of_range_is_refused(fraction: float) -> None:
    with pytest.raises(RequestError, match="label fraction"):
        share_of_fields([field("a", "columnar")], fraction, "")


def test_more_folds_than_columnar_fields_are_refused(drawn_pack: Path) -> None:
    with pytest.raises(InputError, match="holds out no columnar field"):
        cells_of(Pack(drawn_pack), 6, (1.0,))


def test_a_subpack_holds_its_fields_alone(drawn_pack: Path, tmp_path: Path) -> None:
    pack = Pack(drawn_pack)
    sub = open_subpack(pack, ("c1", "r3"), tmp_path / "sub.safetensors")
    assert [(f.id, f.split) for f in sub.info.fields] == [("c1", "train"), ("r3", "train")]
    assert is_columnar_field(sub.info.fields[0]) and not is_columnar_field(sub.info.fields[1])
    assert set(sub.info.statistics["presets"]) == {"columnar nuclei", "round nuclei"}
    for name in ("c1", "r3"):
        for given, kept in zip(pack.window(name, 0, 0, 128, 128), sub.window(name, 0, 0, 128, 128), strict=True):
            assert (given == kept).all()


def test_a_subpack_of_other_fields_is_written_anew(drawn_pack: Path, tmp_path: Path) -> None:
    path = tmp_path / "sub.safetensors"
    open_subpack(Pack(drawn_pack), ("c1", "r3"), path)
    assert [f.id for f in open_subpack(Pack(drawn_pack), ("c2", "r1"), path).info.fields] == ["c2", "r1"]


@pytest.mark.parametrize("name", ["t1", "nobody"])
def test_no_subpack_of_test_or_unknown_fields(drawn_pack: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=f"field {name} is not among"):
        open_subpack(Pack(drawn_pack), (name,), tmp_path / "sub.safetensors")
