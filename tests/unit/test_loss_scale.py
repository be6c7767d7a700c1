"""The loss scale halves on overflow, doubles after calm, and survives a checkpoint."""

from __future__ import annotations

from coexec.autodiff.loss_scale import FIRST, GROW_AFTER, LEAST, MOST, LossScale


def test_an_overflow_halves_the_scale_and_is_counted() -> None:
    scale = LossScale(calm=5).after(overflowed=True)
    assert scale == LossScale(FIRST / 2, 0, 1)
    assert LossScale(LEAST).after(overflowed=True).value == LEAST


def test_calm_doubles_the_scale() -> None:
    scale = LossScale()
    for _ in range(GROW_AFTER - 1):
        scale = scale.after(overflowed=False)
    assert (scale.value, scale.calm) == (FIRST, GROW_AFTER - 1)
    assert scale.after(overflowed=False) == LossScale(2 * FIRST)
    assert LossScale(MOST, GROW_AFTER).after(overflowed=False).value == MOST


def test_it_survives_as_a_tensor() -> None:
    scale = LossScale(512.0, 7, 3)
    assert LossScale.from_array(scale.to_array()) == scale
