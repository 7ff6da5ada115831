"""Checks of labelled states of the factors at the boundary of a function."""

import numpy as np
import pandas as pd
import xarray as xr

from nfi_pyro.dims import CHAIN, DATE, DRAW, FACTOR
from nfi_pyro.errors import ShapeError, SpecError, name_places
from nfi_pyro.posterior.return_forecast import Date

FACTOR_OTHER = "factor_other"
SAMPLE_DIMS = (CHAIN, DRAW)


def sample_dims(states: xr.Dataset) -> list[str]:
    """Return the dimensions of fits and draws, in order."""
    return [dim for dim in SAMPLE_DIMS if dim in states["loc"].dims]


def read_states(states: xr.Dataset, where: str, n_dates: int) -> tuple[np.ndarray, np.ndarray]:
    """Return loc and scale (..., date, factor), float64, after a look at them."""
    for name in ("loc", "scale"):
        dims = set(states[name].dims) if name in states else set()
        if not {DATE, FACTOR} <= dims <= {DATE, FACTOR, *SAMPLE_DIMS} or dims != set(
            states["loc"].dims
        ):
            raise ShapeError(
                f"states must have loc and scale over date and factor, and chain or draw alone "
                f"beside them; got {tuple(states[name].dims) if name in states else 'none'} for "
                f"{name} at {where}. Take them from factor_states."
            )
    check_dates(states, where, n_dates)
    order = (*sample_dims(states), DATE, FACTOR)
    loc, scale = (
        states[name].transpose(*order).to_numpy().astype(np.float64) for name in ("loc", "scale")
    )
    others = (*range(loc.ndim - 2), loc.ndim - 1)
    refuse_dates(~np.isfinite(loc).all(axis=others), states, "loc must be finite", where)
    valid = (np.isfinite(scale) & (scale > 0.0)).all(axis=others)
    refuse_dates(~valid, states, "scale must be finite and > 0", where)
    return loc, scale


def check_dates(states: xr.Dataset, where: str, least: int) -> None:
    """Refuse too few dates, or dates that do not increase."""
    dates = states.indexes[DATE]
    if len(dates) < least or not (dates.is_monotonic_increasing and dates.is_unique):
        raise SpecError(
            f"dates must increase and be at least {least}; got {len(dates)} at {where}. Sort them "
            "with .sortby('date')."
        )


def refuse_dates(wrong: np.ndarray | np.bool_, states: xr.Dataset, rule: str, where: str) -> None:
    """Raise SpecError naming the dates that are wrong, if any."""
    if wrong.any():
        dates = [str(date)[:10] for date in states[DATE].to_numpy()[wrong]]
        raise SpecError(
            f"{rule}; got others on {name_places(dates)} at {where}. Select the dates that have a "
            "law."
        )


def check_covariances(matrices: np.ndarray, states: xr.Dataset, where: str) -> np.ndarray:
    """Return symmetric covariances (date, factor, factor_other), or name the dates that fail."""
    rule = "covariance must be finite, symmetric and positive definite"
    refuse_dates(~np.isfinite(matrices).all(axis=(1, 2)), states, rule, where)
    turned = np.swapaxes(matrices, 1, 2)
    size = np.abs(matrices).max(axis=(1, 2))
    crooked = np.abs(matrices - turned).max(axis=(1, 2)) > 1e-6 * size
    symmetric = 0.5 * (matrices + turned)
    refuse_dates(crooked | (np.linalg.eigvalsh(symmetric)[:, 0] <= 0.0), states, rule, where)
    return symmetric


def position_of(states: xr.Dataset, date: Date) -> int:
    """Return the position of a date, or say that there is no such one."""
    dates = states[DATE].to_numpy()
    stamp = np.datetime64(pd.Timestamp(date).normalize(), "ns")
    found = np.flatnonzero(dates.astype("datetime64[ns]") == stamp)
    if not found.size:
        raise SpecError(
            f"a date must be one of the states'; got {str(stamp)[:10]} at state_path, states run "
            f"from {str(dates[0])[:10]} to {str(dates[-1])[:10]}. Choose one of those."
        )
    return int(found[0])
