"""What a figure shows of a long table: smoothing, thinning, monthly means, the largest rows.

Everything here is a pure function of results; NaN stays NaN and nothing is filled.
"""

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from nfi_pyro.diagnostics.results import Calibration, InformationCoefficient
from nfi_pyro.dims import ASSET, FACTOR

MOST_FACTORS = 8
MOST_ASSETS = 40
MOST_RISKS = 20
MOST_SOURCES = 16
MOST_KL_LINES = 6
MOST_PRICES = 20
MOST_INTERACTIONS = 10
PRICE_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
MOST_POINTS = 300
Z_95 = 1.959963984540054  # two-sided 95 percent of the standard normal


def smoothed(values: np.ndarray) -> np.ndarray:
    """Return a centred moving average over about one fortieth of the series.

    Parameters
    ----------
    values : ndarray, shape (step,)
        NaN steps are left out of each average.
    """
    window = max(5, len(values) // 40)
    rolling = pd.Series(values, dtype=float).rolling(window, center=True, min_periods=1)
    return rolling.mean().to_numpy()


def stride(length: int) -> int:
    """Return k such that every k-th entry of `length` gives at most `MOST_POINTS` entries."""
    return max(1, -(-length // MOST_POINTS))


def axis_values(data: xr.Dataset | xr.DataArray, dim: str) -> np.ndarray:
    """Return the coordinate of `dim`, or 0, 1, 2, ... where it has none."""
    return data[dim].values


def objective_name(history: xr.Dataset) -> str:
    """Return what the training curve is: without a latent variable there is nothing to bound."""
    return "ELBO" if history["kl"].sizes[FACTOR] else "Log likelihood"


def empty_steps(history: xr.Dataset) -> np.ndarray:
    """Return whether no return was observed on a step's dates, bool (step,).

    There the log likelihood is exactly 0, whatever the model, and the objective 0 but for the
    rounding of the KL.
    """
    name = "log_likelihood" if "log_likelihood" in history else "elbo"
    return history[name].values == 0.0


def seen_steps(history: xr.Dataset) -> np.ndarray:
    """Return the objective by step, NaN on `empty_steps`, which would flatten everything else."""
    return np.where(empty_steps(history), np.nan, history["elbo"].values.astype(float))


def is_percent(values: xr.DataArray) -> bool:
    """Return whether a decimal is to be read in percent: a return, or a share of something."""
    return values.attrs.get("units") == "decimal return" or str(values.name).endswith("share")


def kl_names(history: xr.Dataset) -> list[str]:
    """Return the names of the KL columns; a single column is of all factors together."""
    names = [str(name) for name in axis_values(history["kl"], FACTOR)]
    return ["all factors"] if len(names) == 1 else names


def nominal_levels(calibration: Calibration) -> np.ndarray:
    """Return the nominal coverage levels, shape (level,), in [0, 1]."""
    coverage = calibration.coverage
    return coverage["nominal" if "nominal" in coverage.variables else "level"].values.astype(float)


def cumulative_rank_ic(result: InformationCoefficient) -> pd.DataFrame:
    """Return the running sum of Rank IC by date with a pointwise 95 percent band.

    The band after n of N dates is the sum plus and minus 1.96 SE sqrt(n N), where SE is the
    standard error of the mean over all N dates. At the last date it is N times the interval of
    the mean, so it excludes zero there exactly when the interval does.

    Returns
    -------
    DataFrame indexed by date
        Columns total, lower, upper; only dates whose Rank IC is finite.
    """
    daily = result.rank_ic.to_series().dropna()
    total = daily.cumsum()
    n_so_far = np.arange(1, len(daily) + 1)
    half = Z_95 * result.standard_error * np.sqrt(n_so_far * max(len(daily), 1))
    return pd.DataFrame({"total": total, "lower": total - half, "upper": total + half})


def monthly_rank_ic(result: InformationCoefficient) -> pd.DataFrame:
    """Return the mean Rank IC by calendar month, shape (year, month 1 to 12), NaN if none."""
    daily = result.rank_ic.to_series().dropna()
    dates = pd.DatetimeIndex(daily.index)
    table = daily.groupby([dates.year.rename("year"), dates.month.rename("month")]).mean()
    return table.unstack("month").reindex(columns=range(1, 13))


def factor_movement(factors: xr.Dataset) -> pd.Series:
    """Return by factor how far the posterior mean moved from the prior mean, in prior sd.

    Root mean square over the dates where it is finite; NaN for a factor with none.
    """
    moved = (factors["posterior_loc"] - factors["prior_loc"]) / factors["prior_scale"]
    squared = (moved**2).transpose(..., FACTOR).to_pandas()
    return pd.DataFrame(squared).mean(axis=0) ** 0.5


def largest(values: pd.Series, most: int) -> list[int]:
    """Return the positions of the `most` largest values, in their original order.

    NaN counts as smallest; ties go to the earlier position.
    """
    ranked = np.argsort(-values.fillna(-np.inf).to_numpy(dtype=float), kind="stable")
    return sorted(int(position) for position in ranked[:most])


def shown_exposures(exposures: xr.DataArray) -> xr.DataArray:
    """Return at most `MOST_ASSETS` rows, those with the largest Euclidean norm, largest first.

    With that many assets or fewer the given order is kept. NaN betas count as 0 in the norm.
    """
    table = exposures.transpose(ASSET, FACTOR)
    if table.sizes[ASSET] <= MOST_ASSETS:
        return table
    norm = np.linalg.norm(np.nan_to_num(table.values), axis=1)
    return table.isel({ASSET: np.argsort(-norm, kind="stable")[:MOST_ASSETS]})


def shown_contributions(contribution: xr.DataArray) -> pd.Series:
    """Return contributions by source, the smallest ones summed into one row of the rest.

    Of more than `MOST_SOURCES`, those below a two-thousandth of the total are never shown alone.

    Parameters
    ----------
    contribution : DataArray, shape (source,)
        Last entry is the specific part, which is always shown.
    """
    series = pd.Series(contribution.values, index=[str(s) for s in contribution["source"].values])
    if len(series) <= MOST_SOURCES:
        return series
    size = series.iloc[:-1].abs()
    floor = 0.0005 * np.nan_to_num(abs(series.sum()))
    kept = [k for k in largest(size, MOST_SOURCES - 2) if not size.iloc[k] < floor]
    rest = series.iloc[:-1].drop(series.index[kept])
    parts = [series.iloc[kept], pd.Series({f"{len(rest)} others": rest.sum()}), series.iloc[-1:]]
    return pd.concat(parts)


def at_level(values: xr.DataArray, level: float) -> float:
    """Return the value at a level, NaN when that level was not computed."""
    match: Any = np.isclose(values["level"].values.astype(float), level)
    return float(values.values[match][0]) if match.any() else float("nan")


def price_spread(pricing: xr.Dataset) -> pd.DataFrame:
    """Return how the price of each exposure lies over assets, largest effect first.

    Parameters
    ----------
    pricing : Dataset
        `jacobian` g and `beta`, both (asset, factor), and `price_of_risk` (factor,).

    Returns
    -------
    DataFrame indexed by factor
        `common`, `mean` and the quantiles `PRICE_QUANTILES` (columns ``5%`` to ``95%``) of g,
        decimal return per unit exposure; `exposure_sd`; `effect`, the mean absolute g times that;
        and `heterogeneity`, ``std_i(g) sd_i(beta)``: both decimal return. Moments are over the
        assets of the date (ddof 0). Sorted by `effect`.
    """
    price = pricing["jacobian"].transpose(ASSET, FACTOR).values.astype(float)
    spread = pricing["beta"].transpose(ASSET, FACTOR).values.astype(float).std(axis=0)
    table = pd.DataFrame(
        {
            "common": pricing["price_of_risk"].values.astype(float),
            "mean": price.mean(axis=0),
            **{f"{q:.0%}": np.quantile(price, q, axis=0) for q in PRICE_QUANTILES},
            "exposure_sd": spread,
            "effect": np.abs(price).mean(axis=0) * spread,
            "heterogeneity": price.std(axis=0) * spread,
        },
        index=[str(name) for name in axis_values(pricing, FACTOR)],
    )
    return table.sort_values("effect", ascending=False, kind="stable")


def total_heterogeneity(pricing: xr.Dataset) -> float:
    """Return ``sqrt(trace(Cov_i(g) Cov_i(beta)))``, decimal return: the same in every basis."""
    parts = [pricing[name].transpose(ASSET, FACTOR).values for name in ("jacobian", "beta")]
    price, beta = (part - part.mean(axis=0) for part in parts)
    product = (price.T @ price) * (beta.T @ beta) / max(len(price), 1) ** 2
    return float(np.sqrt(max(product.sum(), 0.0)))


def interactions(pricing: xr.Dataset) -> pd.DataFrame:
    """Return the curvature of the expected return by pair of exposures, largest first.

    Returns
    -------
    DataFrame indexed by pair
        `size`, mean over assets of ``|H_jk| sd_j sd_k``, and `mean`, that of ``H_jk sd_j sd_k``:
        decimal return. A factor with itself is its curvature.
    """
    hessian = pricing["hessian"].transpose(ASSET, FACTOR, ...).values.astype(float)
    spread = pricing["beta"].transpose(ASSET, FACTOR).values.astype(float).std(axis=0)
    names = [str(name) for name in axis_values(pricing, FACTOR)]
    upper = np.triu_indices(len(names))
    scale = np.outer(spread, spread)[upper]
    pairs = [f"{names[j]} × {names[k]}" for j, k in zip(*upper, strict=True)]
    table = pd.DataFrame(
        {
            "size": np.abs(hessian).mean(axis=0)[upper] * scale,
            "mean": hessian.mean(axis=0)[upper] * scale,
        },
        index=pairs,
    )
    return table.sort_values("size", ascending=False, kind="stable")
