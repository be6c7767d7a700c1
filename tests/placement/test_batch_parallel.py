"""How a batch is divided, by numbers alone."""

from __future__ import annotations

import pytest

from coexec.placement.policies.batch_parallel import balanced_rows, corrected_rows, homes


@pytest.mark.parametrize(
    ("whole_us", "rows", "expected"),
    [
        ({"a": 100.0, "b": 100.0}, 32, {"a": 16, "b": 16}),
        ({"a": 100.0, "b": 300.0}, 32, {"a": 24, "b": 8}),
        ({"a": 1.0, "b": 1000.0}, 8, {"a": 7, "b": 1}),
        ({"a": 100.0, "b": 100.0, "c": 100.0}, 7, {"a": 3, "b": 2, "c": 2}),
        ({"a": 100.0, "b": 100.0}, 2, {"a": 1, "b": 1}),
    ],
)
def test_shares_are_in_inverse_proportion_to_times(
    whole_us: dict[str, float], rows: int, expected: dict[str, int]
) -> None:
    assert balanced_rows(whole_us, rows) == expected


def test_measured_shares_correct_the_division() -> None:
    assert corrected_rows({"a": 16, "b": 16}, {"a": 100.0, "b": 300.0}) == {"a": 24, "b": 8}
    assert corrected_rows({"a": 24, "b": 8}, {"a": 240.0, "b": 240.0}) == {"a": 24, "b": 8}


def test_updates_are_shared_as_samples_are_and_small_ones_stay() -> None:
    sizes = [1 << 20] * 8 + [4] * 3
    found = homes(sizes, {"a": 24, "b": 8}, "a")
    assert found[:8].count("b") == 2
    assert set(found[8:]) == {"a"}
