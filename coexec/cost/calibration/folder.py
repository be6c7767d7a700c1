"""Everything that a folder of measurements holds."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from coexec.base.errors import UsageError
from coexec.cost.calibration import frameworks, kernels, networks, npu, training
from coexec.cost.calibration.sample import Sample

READERS = {
    kernels.DATASET: kernels.read_kernels,
    networks.DATASET: networks.read_networks,
    npu.DATASET: npu.read_npu,
    "other engines": frameworks.read_frameworks,
    training.DATASET: training.read_training,
}
SAMPLE_FILES = frozenset(
    f"{name}.csv"
    for name in (
        kernels.DATASET,
        networks.DATASET,
        npu.DATASET,
        frameworks.NCNN,
        frameworks.TABLES,
        frameworks.MACE,
    )
)
"""Files of which every row is a sample, or counted as skipped."""


@dataclass(frozen=True)
class Measurements:
    """Samples of a folder; ``skipped`` counts rows of which something is not known, by file."""

    samples: tuple[Sample, ...]
    skipped: dict[str, int]

    @property
    def counts(self) -> dict[str, int]:
        """Samples by dataset."""
        return dict(Counter(sample.dataset for sample in self.samples))


def read_folder(folder: Path) -> Measurements:
    """Read every file of a folder that is known; others are left alone.

    Raises:
        UsageError: no such folder, none of the files in it, or a file is damaged.
    """
    if not folder.is_dir():
        raise UsageError(f"--data {folder} is no folder")
    samples: list[Sample] = []
    skipped: dict[str, int] = {}
    for name, read in READERS.items():
        found, unknown = read(folder)
        samples += found
        if unknown:
            skipped[name] = unknown
    if not samples and skipped:
        rows = ", ".join(f"{count} rows of {name}" for name, count in skipped.items())
        raise UsageError(
            f"--data {folder}: no row can be used: {rows} are of networks or chips that nothing is "
            f"known of, or have no time; shapes of networks come from {kernels.DATASET}.csv"
        )
    if not samples:
        raise UsageError(
            f"--data {folder} has no measurements that can be used; files are looked for by name, "
            f"such as {kernels.DATASET}.csv and {networks.DATASET}.csv (docs/phones.md)"
        )
    return Measurements(tuple(samples), skipped)
