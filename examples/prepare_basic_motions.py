"""Write BasicMotions as train.npz and validation.npz: a wrist's accelerometer and gyroscope.

An example: python examples/prepare_basic_motions.py --out out

80 recordings of four motions, 100 time steps of 6 channels, with their own split of 40 and 40
(Bagnall et al., "The UEA multivariate time series classification archive", 2018). The data ships
inside sktime: nothing is downloaded.
``x`` float32 (N, 6, 100), each channel standardised by the training set's mean and deviation;
``labels`` int64 (N,): badminton 0, running 1, standing 2, walking 3.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sktime.datasets import load_basic_motions

MOTIONS = ("badminton", "running", "standing", "walking")

Split = tuple[NDArray[np.float32], NDArray[np.int64]]


def basic_motions() -> tuple[Split, Split]:
    """Training and test set, each as (recordings, labels)."""
    (x_train, train), (x_test, test) = (
        load_basic_motions(split=split, return_type="numpy3D") for split in ("train", "test")
    )
    mean = x_train.mean((0, 2), keepdims=True)
    deviation = x_train.std((0, 2), keepdims=True)
    return (
        (_standardised(x_train, mean, deviation), _numbered(train)),
        (_standardised(x_test, mean, deviation), _numbered(test)),
    )


def _standardised(
    x: NDArray[np.float64], mean: NDArray[np.float64], deviation: NDArray[np.float64]
) -> NDArray[np.float32]:
    return ((x - mean) / deviation).astype(np.float32)


def _numbered(names: NDArray[np.str_]) -> NDArray[np.int64]:
    return np.array([MOTIONS.index(str(name)) for name in names], np.int64)


def main() -> None:
    """Write both files and say what is in them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path(), help="folder of the two files")
    folder = parser.parse_args().out
    folder.mkdir(parents=True, exist_ok=True)
    for name, (x, labels) in zip(("train", "validation"), basic_motions(), strict=True):
        file = folder / f"{name}.npz"
        np.savez(file, x=x, labels=labels)
        print(f"{file}: x {x.dtype}{x.shape}, labels {labels.dtype}{labels.shape}")


if __name__ == "__main__":
    main()
