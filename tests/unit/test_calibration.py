"""Calibration recovers a law that is known, and cross-validation never splits a model or a chip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from coexec.base.errors import UsageError
from coexec.core.soc_file import find_soc
from coexec.cost.calibration import operators
from coexec.cost.calibration.checks import check_folder
from coexec.cost.calibration.consistency import closest
from coexec.cost.calibration.families import family_of
from coexec.cost.calibration.fit import fit
from coexec.cost.calibration.folder import SAMPLE_FILES, read_folder
from coexec.cost.calibration.framework_names import layers_of_network
from coexec.cost.calibration.frameworks import fastest_cores
from coexec.cost.calibration.least_squares import fit_factors
from coexec.cost.calibration.sample import Sample
from coexec.cost.calibration.score import ranking
from coexec.cost.calibration.training import ratios, step_of
from coexec.cost.calibration.validate import (
    BY_FAMILY,
    BY_MODEL,
    BY_SOC,
    Outcome,
    _folds,
    as_shipped,
    cross_validate,
    from_data_sheets,
)
from coexec.cost.soc.coefficients import read_coefficients, shipped, write_coefficients
from coexec.cost.soc.trees import Trees
from tests.phones import write_csv, write_folder

ensemble = pytest.importorskip("sklearn.ensemble")


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> tuple[Sample, ...]:
    return read_folder(write_folder(tmp_path_factory.mktemp("phones"))).samples


@pytest.fixture(scope="module")
def by_model(samples: tuple[Sample, ...]) -> Outcome:
    outcome = cross_validate(samples, BY_MODEL, lambda name: None)
    assert outcome is not None
    return outcome


def errors(outcome: Outcome, dataset: str) -> float:
    return next(s.mape for s in outcome.scores() if (s.dataset, s.group) == (dataset, "all"))


def test_a_known_law_is_found_again_on_models_that_were_held_out(by_model: Outcome) -> None:
    assert errors(by_model, "gpu_ops_tflite") < 0.10
    assert errors(by_model, "e2e_tflite") < 0.05


def test_it_is_found_on_a_chip_that_was_held_out(samples: tuple[Sample, ...]) -> None:
    outcome = cross_validate(samples, BY_SOC, lambda name: None)
    assert outcome is not None
    assert errors(outcome, "gpu_ops_tflite") < 0.10
    assert errors(outcome, "e2e_tflite") < 0.10


def test_it_beats_flop_over_peak_on_the_same_rows(by_model: Outcome) -> None:
    for score in by_model.scores():
        if score.group == "all":
            assert score.gain > 2
            assert score.rows == sum(s.dataset == score.dataset for s in by_model.samples)


def test_a_chip_known_by_its_data_sheet_has_no_measured_figures(
    samples: tuple[Sample, ...],
) -> None:
    """Whatever was measured on it, as long as the rows of others are the same."""
    outcome = from_data_sheets(samples, lambda name: None)
    assert outcome is not None
    assert len(outcome.samples) == len(samples)
    soc = find_soc("snapdragon-710")
    assert soc.gpu is not None
    other = replace(soc, gpu=replace(soc.gpu, sustained_share=0.01, kernel_us=1.0))
    moved = [replace(s, soc=other) if s.soc.name == other.name else s for s in samples]
    again = from_data_sheets(moved, lambda name: None)
    assert again is not None
    held_out = [sample.soc.name == other.name for sample in samples]
    np.testing.assert_allclose(again.predicted[held_out], outcome.predicted[held_out])
    mean = next(s for s in outcome.of_chip("snapdragon-710") if s.dataset == "gpu_ops_tflite").mape
    assert 0 < mean < 1


def test_data_sheets_are_not_compared_where_one_chip_was_measured(
    samples: tuple[Sample, ...],
) -> None:
    alone = [sample for sample in samples if sample.soc.name == "snapdragon-855"]
    assert from_data_sheets(alone, lambda name: None) is None


@pytest.mark.parametrize("split", [BY_MODEL, BY_FAMILY, BY_SOC])
def test_folds_hold_out_whole_models_families_or_chips(
    samples: tuple[Sample, ...], split: str
) -> None:
    seen = np.zeros(len(samples), int)
    for _, held_out in _folds(samples, split):
        seen += held_out
        inside = {_name(s, split) for s, out in zip(samples, held_out, strict=True) if not out}
        outside = {_name(s, split) for s, out in zip(samples, held_out, strict=True) if out}
        assert not inside & outside
    assert (seen == 1).all()


def _name(sample: Sample, split: str) -> str:
    if split == BY_FAMILY:
        return family_of(sample.model)
    return sample.model if split == BY_MODEL else sample.soc.name


def test_a_known_law_is_found_again_on_families_that_were_held_out(
    samples: tuple[Sample, ...],
) -> None:
    """Relatives by name: each third of the networks."""
    names = sorted({sample.model for sample in samples})
    begins = ("resnet", "vgg", "regnet")
    renamed = {name: f"{begins[n % 3]}{n}" for n, name in enumerate(names)}
    moved = [replace(sample, model=renamed[sample.model]) for sample in samples]
    outcome = cross_validate(moved, BY_FAMILY, lambda name: None)
    assert outcome is not None
    assert errors(outcome, "e2e_tflite") < 0.10


@pytest.mark.parametrize(
    ("model", "family"),
    [
        ("mobilenetb_wd4", "MobileNet"),
        ("mobilenet_ssd", "MobileNet"),
        ("mobilenetv2_yolov3", "inverted residuals"),
        ("EfficientNetB0", "inverted residuals"),
        ("sepreresnetbc26b", "residual networks"),
        ("ResNet34 CIFAR10", "residual networks"),
        ("blazeface_features", "MediaPipe"),
        ("pspnet101", "scenes"),
        ("conditional_detr_resnet50", "DETR"),
        ("mobile_sam_encoder", "Segment Anything"),
        ("mobilebert", "transformers of text"),
        ("vit_b32", "transformers of images"),
        ("FastStyleTransfer", "resolution and style"),
        ("craft", "others"),
    ],
)
def test_relatives_are_of_one_family(model: str, family: str) -> None:
    assert family_of(model) == family


def test_one_chip_cannot_be_held_out(samples: tuple[Sample, ...]) -> None:
    alone = [sample for sample in samples if sample.soc.name == "snapdragon-855"]
    assert cross_validate(alone, BY_SOC, lambda name: None) is None


def test_coefficients_survive_writing_and_reading(
    samples: tuple[Sample, ...], tmp_path: Path
) -> None:
    fitted = fit(samples)
    path = tmp_path / "coefficients.json"
    write_coefficients(fitted, path)
    again = as_shipped(read_coefficients(path), samples)
    np.testing.assert_allclose(again.predicted, as_shipped(fitted, samples).predicted, rtol=2e-3)
    path.write_text("{}")
    with pytest.raises(UsageError, match=r"holds no coefficients"):
        read_coefficients(path)


def test_trees_predict_what_scikit_learn_predicts() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(200, 5))
    model = ensemble.GradientBoostingRegressor(n_estimators=10, init="zero", random_state=0)
    model.fit(rows, rows[:, 0] * np.sign(rows[:, 1]))
    trees = Trees.of_sklearn(model)
    np.testing.assert_allclose(trees.predict(rows), model.predict(rows), rtol=1e-9, atol=1e-12)
    again = Trees.from_json(trees.to_json())
    np.testing.assert_allclose(again.predict(rows), model.predict(rows), atol=0.05)


def test_factors_are_exact_positive_and_keep_what_no_sample_tells() -> None:
    rng = np.random.default_rng(0)
    rows = np.hstack([rng.uniform(1, 9, (30, 2)), np.zeros((30, 1))])
    found = fit_factors(rows, rows @ np.array([2.0, 3.0, 0.0]), np.array([1.0, 1.0, 7.0]), 1e-6)
    np.testing.assert_allclose(found, [2, 3, 7], rtol=1e-3)
    against = fit_factors(rows, rows[:, 0] * 2, np.array([0.0, 0.0, 0.0]), 1e-6)
    assert (against >= 0).all()
    least = np.array([0.0, 4.0, 0.0])
    bounded = fit_factors(rows, rows @ np.array([2.0, 3.0, 0.0]), least, 1e-6, least)
    assert (bounded >= least).all()


def test_stiff_factors_stay_where_they_were_expected_and_others_take_what_is_left() -> None:
    """Two terms that no sample tells apart, one of which is known beforehand."""
    one = np.linspace(1, 9, 30)
    rows, prior = np.stack([one, one], axis=1), np.array([1.0, 1.0])
    stiff = fit_factors(rows, 5 * one, prior, 1.0, stiffness=np.array([1.0, 1e6]))
    np.testing.assert_allclose(stiff, [4, 1], rtol=0.05)
    alike = fit_factors(rows, 5 * one, prior, 1.0)
    np.testing.assert_allclose(alike, [2.5, 2.5], rtol=0.05)


def test_ranking_counts_pairs_of_processors_in_order(samples: tuple[Sample, ...]) -> None:
    network = [s for s in samples if s.whole and s.model == "net0" and "855" in s.soc.name]
    times = np.array([s.measured_us for s in network])
    assert ranking(network, times) == pytest.approx(1)
    assert ranking(network, -times) == pytest.approx(-1)
    assert np.isnan(ranking(network[:1], times[:1]))


def test_known_networks_have_the_arithmetic_of_their_papers() -> None:
    giga = {
        "AlexNet": 0.71,
        "VGG16": 15.5,
        "ResNet34": 3.67,
        "ResNet50": 4.1,
    }
    for name, expected in giga.items():
        macs = sum(layer.flop for layer in layers_of_network(name, {})) / 2e9
        assert macs == pytest.approx(expected, rel=0.03)
    assert layers_of_network("LeNet", {}) == ()


@pytest.mark.parametrize(
    ("workload", "mega"),
    [("VGG11 CIFAR10", 153), ("ResNet18 CIFAR10", 556), ("ResNet34 CIFAR10", 1160)],
)
def test_a_training_step_has_the_arithmetic_of_its_network_three_times(
    workload: str, mega: float
) -> None:
    step = step_of(workload, 64)
    assert sum(layer.flop for layer in step) / 64 / 3 / 2e6 == pytest.approx(mega, rel=0.02)


@pytest.mark.parametrize("workload", ["VGG19 ImageNet", "LeNet CIFAR10", "VGG11"])
def test_a_training_step_of_an_unknown_network_has_no_layers(workload: str) -> None:
    assert step_of(workload, 64) == ()


def test_training_ratios_are_against_the_cpu() -> None:
    soc = find_soc("snapdragon-865")
    layers = step_of("VGG11 CIFAR10", 8)
    pair = [
        Sample("training", "m", soc, processor, "float32", "stock-mnn-opencl", time, layers)
        for processor, time in (("cpu", 10.0), ("gpu", 30.0))
    ]
    (ratio,) = ratios(pair, [10.0, 24.0])
    assert (ratio["ratio"], ratio["measured"], ratio["predicted"]) == ("gpu/cpu", 3.0, 2.4)
    assert ratio["error"] == pytest.approx(-0.2)


def steps_on_two(times: dict[str, tuple[float, float]]) -> list[Sample]:
    """Training steps on a CPU and an NPU, in seconds."""
    return [
        Sample("training", name, find_soc("snapdragon-865"), unit, "int8", "any", s * 1e6, calls)
        for name, both in times.items()
        for calls in [step_of(f"{name} CIFAR10", 64)]
        for unit, s in zip(("cpu", "npu"), both, strict=True)
    ]


def test_ratios_that_no_sum_of_costs_gives_are_found_out() -> None:
    """VGG-16 is VGG-11 and more layers: where it takes half as long, both cannot be met."""
    possible = steps_on_two({"VGG11": (1.0, 0.2), "VGG16": (2.0, 0.4)})
    (fits,) = closest(possible, [each.measured_us for each in possible], 1e5)
    assert fits.error == pytest.approx(0.0, abs=1e-6)
    assert fits.factors
    against = steps_on_two({"VGG11": (1.0, 0.4), "VGG16": (2.0, 0.2)})
    (bound,) = closest(against, [each.measured_us for each in against], 1e5)
    # The best both can be: (1 - e) 0.4 = (1 + e) 0.2.
    assert bound.error == pytest.approx(1 / 3)
    assert bound.rounded < bound.error


def test_the_fastest_cores_come_first() -> None:
    soc = find_soc("snapdragon-765g")
    assert fastest_cores(soc, 1) == "cpu:1prime"
    assert fastest_cores(soc, 4) == "cpu:1prime+1big+2little"


def test_bad_rows_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"is no folder"):
        read_folder(tmp_path / "missing")
    with pytest.raises(UsageError, match=r"has no measurements that can be used"):
        read_folder(tmp_path)
    write_csv(tmp_path / "gpu_ops_tflite.csv", ("model", "soc"), [])
    with pytest.raises(UsageError, match=r"gpu_ops_tflite.csv: column operation is missing"):
        read_folder(tmp_path)
    path = write_folder(tmp_path) / "gpu_ops_tflite.csv"
    text = path.read_text()
    path.write_text(text.replace("CONV_2D,", "CONV_2D,half ", 1))
    with pytest.raises(UsageError, match=r"line 2: in_hw is 'half .*'; a number is wanted"):
        read_folder(tmp_path)
    path.write_text(text.replace("56.0", "big", 1))
    with pytest.raises(UsageError, match=r"line 2: in_hw is 'big'; a number is wanted"):
        read_folder(tmp_path)


TRANSFER = ("step", "data_size", "latency_ms")


def _rows(columns: Sequence[str], values: Sequence[Sequence[object]]) -> list[dict[str, object]]:
    return [dict(zip(columns, row, strict=True)) for row in values]


def test_every_file_has_an_error_or_a_reason(tmp_path: Path) -> None:
    """A cost that follows the machine file is exact, a network without layers is named."""
    folder = write_folder(tmp_path)
    latency = find_soc("snapdragon-855").latency
    rows = [
        (
            "mapping",
            elements,
            (latency.map.median_us + 4 * elements * latency.map_us_per_byte) / 1e3,
        )
        for elements in (1_000, 500_000)
    ]
    write_csv(folder / "transfer_sd855.csv", TRANSFER, _rows(TRANSFER, rows))
    columns = ("soc", "model", "batch", "train_step_ms")
    steps = [("snapdragon-855", "Alexnet", 4, 500.0), ("snapdragon-855", "BrandNew", 4, 499.0)]
    write_csv(folder / "training_cpu_sd855.csv", columns, _rows(columns, steps))
    (folder / "notes.txt").write_text("")
    checks = check_folder(folder, shipped())
    found = {(check.file, check.what): check for check in checks}
    assert found["transfer_sd855.csv", "mapping"].mape == pytest.approx(0, abs=1e-9)
    assert found["training_cpu_sd855.csv", "steps"].rows == 1
    assert "layers of 1 rows" in found["training_cpu_sd855.csv", "BrandNew"].note
    assert found["notes.txt", ""].note == "unknown file: left alone"
    named = {check.file for check in checks} | SAMPLE_FILES
    assert {path.name for path in folder.iterdir()} <= named


def test_square_products_are_told_from_other_rows(tmp_path: Path) -> None:
    """The same rate for CPU and GPU, of a kernel that is the stock engine's."""
    row = ("SD865/Adreno650", "sgemm", "64x64x64 naive kernel", 1, "throughput", 9.0, 9.0, "", "")
    other = ("SD865/Adreno650", "sgemm", "64x64x64 tile16 vec4", 1, "throughput", 9.0, 90.0, "", "")
    write_csv(
        tmp_path / "literature.csv", operators.COLUMNS, _rows(operators.COLUMNS, [row, other])
    )
    found = {check.what: check for check in check_folder(tmp_path, shipped())}
    cpu, gpu = found["square products, cpu"], found["square products, gpu"]
    assert (cpu.rows, gpu.rows) == (1, 1)
    assert gpu.bias > cpu.bias  # predicted to be slower there
