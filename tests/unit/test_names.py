"""What messages say of names that were not found."""

from __future__ import annotations

import pytest

from coexec import zoo
from coexec.base.errors import UsageError
from coexec.base.names import known_names
from coexec.core.soc_file import find_soc


@pytest.mark.parametrize("name", ["mobilenet_v2", "MobileNetV2", "mobilnetv2"])
def test_a_misspelt_name_is_told_what_it_may_have_meant(name: str) -> None:
    assert known_names(name, ["resnet18", "mobilenetv2"]) == (
        "did you mean 'mobilenetv2'? known: resnet18, mobilenetv2"
    )


def test_a_name_that_looks_like_none_is_told_all() -> None:
    assert known_names("yolo", ["resnet18", "vgg11"]) == "known: resnet18, vgg11"


def test_models_and_machines_are_found_by_what_they_look_like() -> None:
    with pytest.raises(UsageError, match=r"did you mean 'mobilenetv2'\? known: mlp, "):
        zoo.build("mobilenet_v2")
    with pytest.raises(UsageError, match=r"did you mean 'snapdragon-865'\? known: "):
        find_soc("snapdragon865x")
