"""Every file of a folder that holds no samples: checked against what is predicted, or why not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from coexec.cost.calibration import figures, operators
from coexec.cost.calibration.check import Check
from coexec.cost.calibration.folder import SAMPLE_FILES
from coexec.cost.soc.coefficients import Coefficients

READERS: Mapping[str, figures.Reader] = {
    **figures.READERS,
    "literature.csv": operators.literature,
    "training_cpu_sd855.csv": operators.cpu_training,
}
SHAPES = "layers of networks whose times are in single_processor_sd855.csv"
REASONS = {
    "shapes_conv2d_large_cnn.csv": SHAPES,
    "shapes_fully_connected_cnn.csv": SHAPES,
    "shapes_pooling_large_cnn.csv": "pooling of these networks: engines do not charge for it",
    "gpu_soc_params.yaml": "no times: figures of machine files were taken from it",
    "README.md": "no measurements",
}


def check_folder(folder: Path, fitted: Coefficients) -> list[Check]:
    """One or more checks for every file of ``folder`` that no sample is read from.

    Raises:
        UsageError: a file is damaged.
    """
    found: list[Check] = []
    for path in sorted(folder.iterdir()):
        if path.name in READERS:
            found += READERS[path.name](path, fitted)
        elif path.name not in SAMPLE_FILES and path.is_file():
            found.append(Check(path.name, "", REASONS.get(path.name, "unknown file: left alone")))
    return found
