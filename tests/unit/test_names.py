"""What messages say of names that were not found."""

from __future__ import annotations

import pytest

from coexec import zoo
from coexec.base.errors import UsageError
from coexec.base.names import known_names, meant_among_many
from coexec.core.soc_file import find_soc


@pytest.mark.parametrize("name", ["mobilenet_v2", "MobileNetV2", "mobilnetv2"])
def test_a_misspelt_name_is_told_what_it_may_have_meant(name: str) -> None:
    assert known_names(name, ["resnet18", "mobilenetv2"]) == (
        "did you mean 'mobilenetv2'? known: resnet18, mobilenetv2"
    )


def test_a_name_that_looks_like_none_is_told_all() -> None:
    assert known_names("yolo", ["resnet18", "vgg11"]) == "known: resnet18, vgg11"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("yol", "did you mean 'yolo_a', 'yolo_b' or 'yolo_c'? coexec zoo lists all 6"),
        ("YoloA", "did you mean 'yolo_a'? coexec zoo lists all 6"),
        ("lstm", "did you mean 'lstm_har'? coexec zoo lists all 6"),
        ("", "coexec zoo lists all 6"),
        ("zzz", "coexec zoo lists all 6"),
    ],
)
def test_of_many_names_only_those_that_may_be_meant_are_told(name: str, message: str) -> None:
    known = ["yolo_a", "yolo_b", "yolo_c", "yolo_d", "lstm_har", "vgg"]
    assert meant_among_many(name, known, "coexec zoo") == message


def test_models_and_machines_are_found_by_what_they_look_like() -> None:
    with pytest.raises(UsageError, match=r"did you mean 'mobilenetv2', "):
        zoo.build("mobilenet_v2")
    with pytest.raises(UsageError, match=r"did you mean 'snapdragon-865'\? known: "):
        find_soc("snapdragon865x")
