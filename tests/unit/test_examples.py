"""The prepared data is what the training tests and the demo rely on."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from examples.prepare_basic_motions import basic_motions
from examples.prepare_digits import Split, digits


@pytest.fixture(scope="module")
def digits_split() -> tuple[Split, Split]:
    return digits()


@pytest.fixture(scope="module")
def motions_split() -> tuple[Split, Split]:
    return basic_motions()


def test_digits_hold_out_a_fifth_of_every_class(digits_split: tuple[Split, Split]) -> None:
    (x, labels), (held_x, held_labels) = digits_split
    assert x.shape == (1437, 1, 8, 8)
    assert held_x.shape == (360, 1, 8, 8)
    assert x.dtype == held_x.dtype == np.float32
    assert labels.dtype == held_labels.dtype == np.int64
    whole, held = Counter(labels) + Counter(held_labels), Counter(held_labels)
    assert all(abs(held[digit] - whole[digit] / 5) < 1 for digit in range(10))


def test_digits_are_standardised_by_the_training_set(digits_split: tuple[Split, Split]) -> None:
    (x, _), (held_x, _) = digits_split
    assert abs(x.mean()) < 1e-4
    assert abs(x.std() - 1) < 1e-4
    # The held-out set is scaled by the other's figures, so only nearly standardised.
    assert 1e-4 < abs(held_x.mean()) < 0.05


def test_no_digit_stands_in_both_sets(digits_split: tuple[Split, Split]) -> None:
    (x, _), (held_x, _) = digits_split
    assert not {image.tobytes() for image in x} & {image.tobytes() for image in held_x}


def test_the_digits_split_never_changes(digits_split: tuple[Split, Split]) -> None:
    (x, labels), _ = digits_split
    (again, again_labels), _ = digits()
    np.testing.assert_array_equal(again, x)
    np.testing.assert_array_equal(again_labels, labels)


def test_basic_motions_keep_their_own_split(motions_split: tuple[Split, Split]) -> None:
    for x, labels in motions_split:
        assert x.shape == (40, 6, 100)
        assert x.dtype == np.float32
        assert labels.dtype == np.int64
        assert Counter(labels) == dict.fromkeys(range(4), 10)
    train = motions_split[0][0]
    np.testing.assert_allclose(train.mean((0, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(train.std((0, 2)), 1, atol=1e-5)
