"""Moving-block bootstrap over dates: how often each date enters each resample."""

import numpy as np


def draw_block_counts(
    n_dates: int, block: int, n_resamples: int, rng: np.random.Generator
) -> np.ndarray:
    """Return how often each date enters each resample of consecutive blocks, (resample, date).

    Blocks keep the dependence between neighbouring dates (Kunsch, 1989).

    Parameters
    ----------
    n_dates, block : int
        Dates, and consecutive dates in a block, from 1 to `n_dates`.
    n_resamples : int
    rng : Generator
    """
    n_blocks = -(-n_dates // block)
    start = rng.integers(0, n_dates - block + 1, size=(n_resamples, n_blocks))
    drawn = (start[:, :, None] + np.arange(block)).reshape(n_resamples, -1)[:, :n_dates]
    flat = (np.arange(n_resamples)[:, None] * n_dates + drawn).ravel()
    times = np.bincount(flat, minlength=n_resamples * n_dates)
    return times.reshape(n_resamples, n_dates).astype(float)
