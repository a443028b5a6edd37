from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from msdm_engine import PairRequest
from msdm_engine.errors import RequestError

BASE: dict[str, Any] = {"index": 0, "seed": 0, "height_px": 20, "width_px": 30}


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [("index", 0, 2**32 - 1), ("seed", 0, 2**64 - 1), ("height_px", 16, 4096), ("width_px", 16, 4096)],
)
def test_numbers_have_their_ranges(name: str, low: int, high: int) -> None:
    for value in (low, high):
        PairRequest(**(BASE | {name: value}))
    for value in (low - 1, high + 1):
        with pytest.raises(RequestError, match=f"{name} is {value}") as caught:
            PairRequest(**(BASE | {name: value}))
        assert f"from {low} to {high}" in str(caught.value.note)


def test_a_mask_of_another_size_is_refused() -> None:
    with pytest.raises(RequestError, match=r"\(30, 20\).*\(20, 30\)"):
        PairRequest(**BASE, instances=np.zeros((30, 20), np.uint16))


@pytest.mark.parametrize(("dtype", "value"), [("f4", 1), ("?", 1), ("i4", -1), ("i4", 65536), ("u8", 2**63)])
def test_illegal_labels_are_refused(dtype: str, value: int) -> None:
    instances = np.zeros((20, 30), dtype)
    instances[3, 4] = value
    with pytest.raises(RequestError, match="pair 0: a mask of type") as caught:
        PairRequest(**BASE, instances=instances)
    assert "up to 65535" in str(caught.value.note)


@pytest.mark.parametrize("dtype", ["u1", "u2", "i4", "i8"])
def test_any_integer_type_is_legal(dtype: str) -> None:
    assert PairRequest(**BASE, instances=np.full((20, 30), 100, dtype)).instances is not None
