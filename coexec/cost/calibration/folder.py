"""Everything that a folder of measurements holds."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from coexec.base.errors import UsageError
from coexec.cost.calibration import frameworks, kernels, networks, npu, training
from coexec.cost.calibration.left_out import LeftOut, reasons
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
    """Samples of a folder, and rows of which something is not known."""

    samples: tuple[Sample, ...]
    left_out: tuple[LeftOut, ...]

    @property
    def skipped(self) -> dict[str, int]:
        """How many rows are left out, by file."""
        return dict(Counter(row.file.removesuffix(".csv") for row in self.left_out))

    @property
    def counts(self) -> dict[str, int]:
        """Samples by dataset."""
        return dict(Counter(sample.dataset for sample in self.samples))


def read_folder(folder: Path) -> Measurements:
    """Read every file of a folder that is known; others are left alone.

    Raises:
        UsageError: no such folder, no row in it that can be used, or a file is damaged.
    """
    found = read_files(folder)
    require_samples(folder, found)
    return found


def read_files(folder: Path) -> Measurements:
    """As :func:`read_folder`, where no row may be usable.

    Raises:
        UsageError: no such folder, or a file is damaged.
    """
    if not folder.is_dir():
        raise UsageError(f"--data {folder} is no folder")
    samples: list[Sample] = []
    unknown: list[LeftOut] = []
    for read in READERS.values():
        found, others = read(folder)
        samples += found
        unknown += others
    return Measurements(tuple(samples), tuple(unknown))


def require_samples(folder: Path, found: Measurements) -> None:
    """Refuse measurements without a single sample.

    Raises:
        UsageError: there is none; the message has the reasons.
    """
    if found.samples:
        return
    if not found.left_out:
        raise UsageError(
            f"--data {folder} has no measurements that can be used; files are looked for by name, "
            f"such as {kernels.DATASET}.csv and {networks.DATASET}.csv (docs/phones.md)"
        )
    why = "; ".join(
        f"{each.rows} rows of {each.file} {each.note()}" for each in reasons(found.left_out)
    )
    raise UsageError(
        f"--data {folder}: no row can be used: {why}; layers of networks come from "
        f"{kernels.DATASET}.csv"
    )
