"""Philox4x32-10: random bits as a pure function of a counter and a key.

Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC 2011. Any element can
be computed alone, so a device and this reference agree bit for bit whatever the order of work.
"""

from __future__ import annotations

import numpy as np

from coexec.core.types import Array

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10
MASK = np.uint64(0xFFFFFFFF)
SHIFT = np.uint64(32)


def philox_blocks(blocks: int, counter: int, seed: int) -> Array:
    """Random words, uint32 of shape (blocks, 4).

    Block ``b`` of stream ``counter`` under ``seed``: the 128-bit counter of the paper is
    (b low, b high, counter low, counter high), the key (seed low, seed high).
    """
    index = np.arange(blocks, dtype=np.uint64)
    stream = np.uint64(counter % 2**64)
    words = [index & MASK, index >> SHIFT]
    words += [np.full_like(index, stream & MASK), np.full_like(index, stream >> SHIFT)]
    key = [seed % 2**32, (seed % 2**64) >> 32]
    for _ in range(ROUNDS):
        first, second = (words[0] * np.uint64(MULTIPLIERS[0]), words[2] * np.uint64(MULTIPLIERS[1]))
        words = [
            (second >> SHIFT) ^ words[1] ^ np.uint64(key[0]),
            second & MASK,
            (first >> SHIFT) ^ words[3] ^ np.uint64(key[1]),
            first & MASK,
        ]
        key = [(k + step) % 2**32 for k, step in zip(key, KEY_STEPS, strict=True)]
    return np.stack(words, axis=1).astype(np.uint32)


def keep_threshold(ratio: float) -> int:
    """A word not below this is kept: the share 1 - ratio of all words, as near as 32 bits allow."""
    if not 0.0 <= ratio <= 1.0:
        raise ValueError(f"ratio must be in [0, 1], got {ratio}")
    return round(ratio * 2**32) if ratio == 1 else min(round(ratio * 2**32), 2**32 - 1)


def bernoulli(size: int, ratio: float, counter: int, seed: int) -> Array:
    """``size`` booleans, each true with probability 1 - ratio.

    Groups of 64 elements come from 16 blocks: first the blocks' first words, then their second
    ones and so on, so that a device computes blocks in the lanes of a vector and stores lanes.
    """
    groups = -(-size // 64)
    words = philox_blocks(groups * 16, counter, seed).reshape(groups, 16, 4)
    ordered = words.transpose(0, 2, 1).reshape(-1)[:size].astype(np.uint64)
    return np.asarray(ordered >= np.uint64(keep_threshold(ratio)))


def uniforms(size: int, counter: int, seed: int) -> Array:
    """``size`` numbers of [0, 1), float64: the upper 24 bits of words in the order of groups.

    24 bits are what float32 holds exactly.
    """
    return np.asarray(_grouped_words(size, counter, seed).reshape(-1)[:size] * 2.0**-24)


def normals(size: int, counter: int, seed: int) -> Array:
    """``size`` normal numbers (0, 1), float64, below 5.8.

    Box and Muller, "A Note on the Generation of Random Normal Deviates", 1958: first and second
    words of a group give radius and angle, third and fourth ones do.
    """
    words = _grouped_words(size, counter, seed).reshape(-1, 2, 2, 16)
    radius = np.sqrt(-2 * np.log((words[:, :, 0] + 1.0) * 2.0**-24))
    angle = 2 * np.pi * words[:, :, 1] * 2.0**-24
    drawn = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=2)
    return np.asarray(drawn.reshape(-1)[:size])


def _grouped_words(size: int, counter: int, seed: int) -> Array:
    """The upper 24 bits of whole groups of 64 words, float64: (groups, 4, 16)."""
    groups = -(-size // 64)
    words = philox_blocks(groups * 16, counter, seed).reshape(groups, 16, 4)
    return np.asarray((words.transpose(0, 2, 1) >> 8).astype(np.float64))
