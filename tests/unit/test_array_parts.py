"""Parts of arrays: as memory in rows, and copied from and to bytes; on every processor."""

from __future__ import annotations

import numpy as np
import pytest

from coexec.base.array_parts import copy_bytes, part_of, rows_of
from coexec.processors.find import open_processor
from tests.runtimes import RUNTIMES

PARTS = [
    ((8, 6, 5), (1, 2, 5)),
    ((1, 6, 5), (1, 2, 5)),
    ((4, 1, 6), (2, 1, 4)),
    ((2, 3, 1, 5), (3, 1, 2)),
    ((3, 1, 6), (0, 1, 2)),
    ((7,), (0, 2, 6)),
]


@pytest.mark.parametrize(("shape", "part"), PARTS)
def test_rows_are_where_the_elements_of_a_part_are(
    shape: tuple[int, ...], part: tuple[int, int, int]
) -> None:
    whole = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    view = part_of(whole, part)
    memory, count, length, pitch = rows_of(view)
    data = memory.view(np.uint8)
    rows = [data[i * pitch : i * pitch + length] for i in range(count)]
    np.testing.assert_array_equal(np.concatenate(rows).view(np.float32), view.ravel())
    packed = np.empty(view.nbytes, np.uint8)
    copy_bytes(packed, view)
    target = np.zeros_like(whole)
    copy_bytes(part_of(target, part), packed)
    expected = np.zeros_like(whole)
    part_of(expected, part)[...] = view
    np.testing.assert_array_equal(target, expected)


def test_what_lies_in_no_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="no runs"):
        rows_of(np.zeros((4, 6, 5), np.float32)[::2, 1:3, :2])


@pytest.mark.parametrize("name", [*RUNTIMES, "ort:cpu", "reference"])
def test_processors_copy_parts_in_place(name: str) -> None:
    processor = open_processor(name)
    rng = np.random.default_rng(0)
    for shape, part in PARTS:
        source = part_of(rng.random(shape, np.float32), part)
        buffer = processor.alloc(source.nbytes)
        processor.wait(processor.copy(buffer, source, ()))
        whole = np.zeros(shape, np.float32)
        processor.wait(processor.copy(part_of(whole, part), buffer, ()))
        np.testing.assert_array_equal(part_of(whole, part), source)
        assert np.count_nonzero(whole) == source.size
