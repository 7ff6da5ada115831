"""What a figure is beside the same figure of permuted data."""

import numpy as np


def null_summary(value: np.ndarray | float, null: np.ndarray) -> dict[str, np.ndarray]:
    """Return bounds of the null over its last axis and the two-sided p-value of `value`."""
    lower, upper = np.quantile(null, [0.025, 0.975], axis=-1)
    centre = null.mean(axis=-1)
    further = np.abs(null - centre[..., None]) >= np.abs(value - centre)[..., None]
    p_value = (1.0 + further.sum(axis=-1)) / (1.0 + null.shape[-1])
    known = np.isfinite(value)
    return {
        "null_lower": lower,
        "null_upper": upper,
        "p_value": np.where(known, p_value, np.nan),
    }
