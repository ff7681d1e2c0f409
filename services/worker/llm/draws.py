"""Random numbers without state: one for each (seed, position), whoever asks and in whatever company."""

from collections.abc import Sequence as Run

import numpy as np
from numpy.typing import NDArray

_STEP = np.uint64(0x9E3779B97F4A7C15)


def uniforms(seeds: Run[int], positions: Run[int]) -> NDArray[np.float64]:
    """Numbers from 0 up to but not including 1.

    Each is the output of SplitMix64 (Steele, Lea and Flood 2014) at step `position`, counted from a start that the same
    generator made of the seed; so it is a function of the two, and near seeds have nothing in common.

    Args:
        seeds: 0 to 2^63 - 1.
        positions: which token of the output it is for, from 0.
    """
    with np.errstate(over="ignore"):
        starts = _mixed(np.asarray(seeds, np.uint64) + _STEP)
        steps = np.asarray(positions, np.uint64) + np.uint64(1)
        bits = _mixed(starts + steps * _STEP)
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mixed(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's output function."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
