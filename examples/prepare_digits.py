"""Write scikit-learn's 1,797 handwritten digits as train.npz and validation.npz.

An example: python examples/prepare_digits.py --out out

Keys are those that `coexec train` expects: the model's input and its labels.
``x`` float32 (N, 1, 8, 8), standardised by the training set's mean and deviation;
``labels`` int64 (N,), 0 to 9. A fifth of every digit is held out, the same one every time.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

HELD_OUT = 0.2
SEED = 0

Split = tuple[NDArray[np.float32], NDArray[np.int64]]


def digits() -> tuple[Split, Split]:
    """Training and held-out set, each as (images, labels)."""
    bunch = load_digits()
    images = bunch.images.astype(np.float32)[:, None]
    labels = bunch.target.astype(np.int64)
    train, held_out = train_test_split(
        np.arange(len(labels)), test_size=HELD_OUT, stratify=labels, random_state=SEED
    )
    mean, deviation = images[train].mean(), images[train].std()
    images = (images - mean) / deviation
    return (images[train], labels[train]), (images[held_out], labels[held_out])


def main() -> None:
    """Write both files and say what is in them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path(), help="folder of the two files")
    folder = parser.parse_args().out
    folder.mkdir(parents=True, exist_ok=True)
    for name, (x, labels) in zip(("train", "validation"), digits(), strict=True):
        file = folder / f"{name}.npz"
        np.savez(file, x=x, labels=labels)
        print(f"{file}: x {x.dtype}{x.shape}, labels {labels.dtype}{labels.shape}")


if __name__ == "__main__":
    main()
