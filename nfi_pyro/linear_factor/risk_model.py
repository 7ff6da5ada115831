"""Risk of the linear factor model on one date, as low rank plus diagonal."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

from nfi_pyro.data.checks.quality import DropLedger
from nfi_pyro.dims import ASSET, FACTOR
from nfi_pyro.errors import SpecError, WeightsError, name_places
from nfi_pyro.linear_factor.cells import (
    KIND_INDUSTRY,
    KIND_MARKET,
    KIND_STYLE,
    as_dims,
    same_labels,
)
from nfi_pyro.linear_factor.factor_risk import OTHER_FACTOR

Weights = Mapping[str, float] | pd.Series | xr.DataArray


@dataclass(frozen=True)
class PortfolioVariance:
    """Variance of a portfolio over one label period, ``total = factor + specific``, and exposures.

    Attributes
    ----------
    total, factor, specific : float
        Squared unit of the returns.
    exposure : DataArray, shape (factor,)
        B'w.
    """

    total: float
    factor: float
    specific: float
    exposure: xr.DataArray


@dataclass(frozen=True)
class LinearRiskModel:
    """Covariance ``B F B' + D`` of the covered assets; it is never formed unless asked for.

    Attributes
    ----------
    exposures : DataArray, shape (asset, factor)
        B, with the columns of ones and of industries.
    factor_covariance : DataArray, shape (factor, other_factor)
        F, per label period.
    specific_variance : DataArray, shape (asset,)
        Diagonal of D, >= 0, per label period.
    ledger : DropLedger
        Assets and factors left out, with the reason.
    """

    exposures: xr.DataArray
    factor_covariance: xr.DataArray
    specific_variance: xr.DataArray
    ledger: DropLedger

    def portfolio_variance(self, weights: Weights) -> PortfolioVariance:
        """Return ``w'(B F B' + D)w`` and its two parts.

        Parameters
        ----------
        weights : mapping, Series or DataArray (asset,)
            Asset to fraction of capital; assets not named weigh 0.

        Raises
        ------
        WeightsError
            When a weight is not finite, an asset is named twice, or one that weighs something is
            not covered.
        """
        vector = self._aligned(weights)
        exposure = self.exposures.to_numpy().T @ vector
        factor = float(exposure @ self.factor_covariance.to_numpy() @ exposure)
        specific = float(self.specific_variance.to_numpy() @ np.square(vector))
        named = xr.DataArray(exposure, {FACTOR: self.exposures[FACTOR]}, FACTOR, "exposure")
        return PortfolioVariance(factor + specific, factor, specific, named)

    def times(self, weights: Weights) -> xr.DataArray:
        """Return ``(B F B' + D) w``, the covariance of every asset with the portfolio (asset,).

        Raises
        ------
        WeightsError
            See `portfolio_variance`.
        """
        vector = self._aligned(weights)
        loading = self.exposures.to_numpy()
        shared = loading @ (self.factor_covariance.to_numpy() @ (loading.T @ vector))
        product = shared + self.specific_variance.to_numpy() * vector
        return xr.DataArray(product, {ASSET: self.exposures[ASSET]}, ASSET, "covariance")

    def covariance(self) -> xr.DataArray:
        """Return the dense matrix, shape (asset, other_asset), squared unit of the returns."""
        loading = self.exposures.to_numpy()
        dense = loading @ self.factor_covariance.to_numpy() @ loading.T
        dense[np.diag_indices_from(dense)] += self.specific_variance.to_numpy()
        assets = self.exposures.indexes[ASSET]
        return xr.DataArray(
            dense, {ASSET: assets, "other_asset": assets.to_numpy()}, (ASSET, "other_asset")
        )

    def _aligned(self, weights: Weights) -> np.ndarray:
        if isinstance(weights, xr.DataArray):
            series = as_dims(weights, (ASSET,), "weights").to_series()
        else:
            series = weights if isinstance(weights, pd.Series) else pd.Series(dict(weights))
        series = series.astype(np.float64)
        wrong = [*series.index[~np.isfinite(series)], *series.index[series.index.duplicated()]]
        if wrong:
            raise WeightsError(
                f"weights must be finite, one an asset; got others at {name_places(wrong)}. "
                "Mend them."
            )
        assets = self.exposures.indexes[ASSET]
        missing = series.index[(series != 0.0) & ~series.index.isin(assets)]
        if len(missing):
            raise WeightsError(
                "weights must be on assets with exposures and a specific variance; got others at "
                f"{name_places(missing)}. The ledger says why they are left out."
            )
        return np.asarray(series.reindex(assets, fill_value=0.0), dtype=np.float64)


def linear_risk_model(
    exposures: xr.DataArray,
    factor_covariance: xr.DataArray,
    specific_variance: xr.DataArray,
    *,
    industries: xr.DataArray | None = None,
) -> LinearRiskModel:
    """Return the risk of the assets of one date from their exposures at its close.

    Parameters
    ----------
    exposures : DataArray, shape (asset, factor)
        The styles, as given to `cross_sectional_regression`; NaN = not known.
    factor_covariance : DataArray, shape (factor, other_factor)
        As from `factor_covariance`, for one date; its coordinate `kind` says which columns are the
        market, industries or styles (all styles without it). NaN for factors not known: an asset
        exposed to one of them is left out.
    specific_variance : DataArray, shape (asset,)
        As from `specific_risk`, for one date; NaN = not known.
    industries : DataArray of str or int, shape (asset,), optional
        Needed when the covariance has industries.

    Returns
    -------
    LinearRiskModel
        Over the assets for which everything is known; the ledger counts the others.

    Raises
    ------
    ShapeError
        When dimensions or assets do not agree.
    SpecError
        When the covariance has a style without exposures or an industry without `industries`, a
        variance is negative or infinite, or the label is a rank or an excess return, whose variance
        is no risk of a portfolio.
    """
    styles = as_dims(exposures, (ASSET, FACTOR), "exposures")
    square = as_dims(factor_covariance, (FACTOR, OTHER_FACTOR), "factor_covariance")
    specific = as_dims(specific_variance, (ASSET,), "specific_variance")
    same_labels(specific, styles, "specific_variance")
    _refuse(square, specific)
    loading = _all_columns(styles, square, industries)
    known = ~np.isnan(np.diagonal(square.to_numpy()))
    inside = square.to_numpy()[np.ix_(known, known)]
    if np.isnan(inside).any():
        raise SpecError(
            "factor_covariance must be known for every pair of known factors; got NaN at "
            f"{name_places(square[FACTOR].to_numpy()[known])}. Use missing='drop'."
        )
    reasons = {
        "assets without an exposure or a known industry": np.isnan(loading).any(axis=1),
        "assets exposed to a factor without a variance": (loading[:, ~known] != 0.0).any(axis=1),
        "assets without a specific variance": np.isnan(specific.to_numpy()),
    }
    assets = styles.indexes[ASSET]
    covered = np.ones(len(assets), dtype=bool)
    names = square[FACTOR].to_numpy()
    ledger = DropLedger().add(
        "factors without a variance", int((~known).sum()), "left out", names[~known]
    )
    for rule, missing in reasons.items():
        out = covered & missing
        ledger = ledger.add(rule, int(out.sum()), "left out", assets[out])
        covered &= ~missing
    kept = square.isel({FACTOR: known, OTHER_FACTOR: known})
    by_asset = {ASSET: assets[covered]}
    return LinearRiskModel(
        exposures=xr.DataArray(
            loading[covered][:, known], {**by_asset, FACTOR: kept[FACTOR]}, (ASSET, FACTOR)
        ),
        factor_covariance=kept,
        specific_variance=specific[covered],
        ledger=ledger,
    )


def _refuse(square: xr.DataArray, specific: xr.DataArray) -> None:
    for array in (square, specific):
        if array.attrs.get("unit") in ("rank", "excess"):
            raise SpecError(
                f"risk must be that of returns; got labels of unit {array.attrs['unit']!r} at "
                "linear_risk_model. Run the regression on plain returns."
            )
    wrong = specific.indexes[ASSET][(specific < 0.0).to_numpy() | np.isinf(specific.to_numpy())]
    if len(wrong):
        raise SpecError(
            f"specific_variance must be >= 0, finite or NaN; got others at {name_places(wrong)}. "
            "Use specific_risk."
        )


def _all_columns(
    styles: xr.DataArray, square: xr.DataArray, industries: xr.DataArray | None
) -> np.ndarray:
    """Return the exposures (asset, factor) to the factors of the covariance, in its order."""
    names = [str(name) for name in square[FACTOR].to_numpy()]
    kinds = (
        list(square["kind"].to_numpy()) if "kind" in square.coords else [KIND_STYLE] * len(names)
    )
    known = {str(name) for name in styles[FACTOR].to_numpy()}
    wrong = [
        name
        for name, kind in zip(names, kinds, strict=True)
        if (kind == KIND_STYLE and name not in known)
        or (kind == KIND_INDUSTRY and industries is None)
    ]
    if wrong:
        raise SpecError(
            "exposures must have every style of the covariance, and industries must be given with "
            f"its industries; got none for {name_places(wrong)}. Add them."
        )
    columns = {str(name): styles.to_numpy()[:, k] for k, name in enumerate(styles[FACTOR].values)}
    groups = [name for name, kind in zip(names, kinds, strict=True) if kind == KIND_INDUSTRY]
    labels, unknown = _industry_labels(industries, styles, groups)
    laid = np.empty((styles.sizes[ASSET], len(names)))
    for position, (name, kind) in enumerate(zip(names, kinds, strict=True)):
        if kind == KIND_MARKET:
            laid[:, position] = 1.0
        elif kind == KIND_STYLE:
            laid[:, position] = columns[name]
        else:
            laid[:, position] = np.where(unknown, np.nan, labels == name)
    return laid


def _industry_labels(
    industries: xr.DataArray | None, styles: xr.DataArray, groups: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Return names of industries (asset,), and where they are none of those of the covariance."""
    if industries is None or not groups:
        return np.full(styles.sizes[ASSET], ""), np.zeros(styles.sizes[ASSET], dtype=bool)
    same_labels(as_dims(industries, (ASSET,), "industries"), styles, "industries")
    labels = industries.to_numpy().astype(str)
    return labels, ~np.isin(labels, groups)  # so are blanks, None and NaN
