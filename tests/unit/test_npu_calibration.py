"""NPUs: names of networks, and what one element type tells of another."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from coexec.core.soc_file import find_soc
from coexec.cost.calibration.fit import fit
from coexec.cost.calibration.left_out import reasons
from coexec.cost.calibration.npu import read_npu
from coexec.cost.calibration.npu_names import PARTS, WHOLE
from coexec.cost.calibration.sample import Sample
from coexec.cost.calibration.zoo_networks import zoo_layers
from coexec.cost.soc.coefficients import Coefficients
from coexec.cost.soc.estimate import network_us
from coexec.cost.soc.limits import limits_of
from coexec.cost.soc.npu_terms import NPU_PRIOR, NPU_TERMS, npu_rows
from coexec.zoo import CATALOG

pytest.importorskip("scipy")
pytest.importorskip("sklearn")

CHIP = "snapdragon-8-gen-3"
LAW = NPU_PRIOR * np.where(np.arange(len(NPU_TERMS)) % 2, 3.0, 0.6)
"""Far from the prior's own proportions."""
SLOWER = {"int8": 1.0, "float16": 1.3}
NETWORKS = {
    name: zoo_layers(name)
    for name in (
        "quicksrnet_small",
        "blazeface",
        "resnet18_224",
        "mobilenet_v3_small",
        "efficientnet_b0",
        "bisenet",
        "googlenet",
        "shufflenet_v2",
        "unet",
    )
}
HEADER = "model_id,component,precision,device,inference_ms,layers_npu\n"


def measured(model: str, precision: str) -> Sample:
    soc, calls = find_soc(CHIP), NETWORKS[model]
    row = npu_rows(calls, limits_of(soc, "npu", precision), precision).sum(axis=0)
    us = float(SLOWER[precision] * row @ LAW)
    return Sample("made", model, soc, "npu", precision, "qnn", us, calls)


def error(fitted: Coefficients, models: Iterable[str]) -> float:
    """Mean relative error of networks in float16."""
    found = []
    for model in models:
        new = measured(model, "float16")
        guess = network_us(fitted, new.soc, "npu", "float16", "qnn", new.calls)
        found.append(abs(guess / new.measured_us - 1))
    return float(np.mean(found))


@pytest.mark.parametrize(
    "known", [("resnet18_224", "shufflenet_v2"), ("bisenet", "blazeface"), ("unet",)]
)
def test_an_element_type_with_few_networks_has_the_proportions_of_the_others(
    known: tuple[str, ...],
) -> None:
    few = [measured(model, "float16") for model in known]
    others = NETWORKS.keys() - {sample.model for sample in few}
    together = fit([*few, *(measured(model, "int8") for model in NETWORKS)])
    assert error(together, others) < 0.25
    assert error(together, others) < 0.95 * error(fit(few), others)


def test_one_network_that_takes_ten_times_too_long_hardly_moves_the_others() -> None:
    samples = [measured(model, "float16") for model in NETWORKS]
    odd = samples[0]
    wrong = replace(odd, measured_us=10 * odd.measured_us)
    others = [sample.model for sample in samples[1:]]
    assert error(fit([wrong, *samples[1:]]), others) < error(fit(samples), others) + 0.1


@pytest.mark.parametrize(
    ("network", "options"), sorted({*WHOLE.values(), *PARTS.values()}, key=str)
)
def test_every_name_means_a_network_of_the_zoo(
    network: str, options: tuple[tuple[str, float], ...]
) -> None:
    assert set(dict(options)) <= set(CATALOG[network].options)


def test_rows_of_networks_that_nobody_knows_are_counted_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "npu_hexagon.csv"
    rows = (
        "mobilenet_v2,MobileNet-v2,float,Samsung Galaxy S24,0.6,104\n"
        "trocr,TrOCREncoder,float,Samsung Galaxy S24,12.5,467\n"
        "trocr,Another,float,Samsung Galaxy S24,1.5,400\n"
        "brand_new,Brand-New,float,Samsung Galaxy S24,1.5,400\n"
        "mobilenet_v2,MobileNet-v2,float,Some Phone,0.6,104\n"
    )
    path.write_text(HEADER + rows, encoding="utf-8")
    samples, unknown = read_npu(tmp_path)
    assert [sample.model for sample in samples] == ["mobilenetv2", "trocr_encoder"]
    assert [each.note() for each in reasons(unknown)] == [
        "not predicted, layers of the network are not known (from line 4): brand_new 1, trocr 1",
        "not predicted, no machine file of the chip (from line 6): Some Phone 1",
    ]


def test_an_element_type_in_a_name_and_other_phones_of_a_chip_change_no_network(
    tmp_path: Path,
) -> None:
    path = tmp_path / "npu_hexagon.csv"
    rows = (
        "mobilenet_v2_quantized,MobileNet-v2,w8a8,QCS8550 (Proxy),0.3,104\n"
        "MobileNet-V2,MobileNet-v2,W8A16,Snapdragon 8 Gen 3 QRD,0.5,104\n"
        "mobilenet_v2,MobileNet-v2,float,Samsung Galaxy S24,n/a,104\n"
        "mobilenet_v2,MobileNet-v2,float,Samsung Galaxy S24,40,0\n"
    )
    path.write_text(HEADER + rows, encoding="utf-8")
    samples, unknown = read_npu(tmp_path)
    assert [(s.model, s.soc.name, s.precision) for s in samples] == [
        ("mobilenetv2", "snapdragon-8-gen-2", "int8"),
        ("mobilenetv2", "snapdragon-8-gen-3", "int16"),
    ]
    assert [each.note() for each in reasons(unknown)] == [
        "not predicted, no time (from line 4): mobilenet_v2 1",
        "not predicted, no layer ran on the NPU (from line 5): mobilenet_v2 1",
    ]


def test_models_with_the_same_layers_are_one_when_models_are_held_out(tmp_path: Path) -> None:
    rows = "".join(
        f"{name},OpusMTEncoder,float,Samsung Galaxy S24,2.5,305\n"
        for name in ("opus_mt_en_es", "opus_mt_zh_en")
    )
    (tmp_path / "npu_hexagon.csv").write_text(HEADER + rows, encoding="utf-8")
    samples, _ = read_npu(tmp_path)
    assert {sample.model for sample in samples} == {"opus_mt_encoder"}
