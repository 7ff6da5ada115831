"""Synthetic feature rows from a fitted PPCA or autoencoder, and their one use: training."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
import xarray as xr

from nfi_pyro.data.splits import DateSplit
from nfi_pyro.dims import ASSET, DATE, FACTOR, FEATURE
from nfi_pyro.errors import PanelError, SpecError, name_places
from nfi_pyro.exposures.ppca_result import PPCAFit
from nfi_pyro.exposures.rows import check_rows, day_text, match_features
from nfi_pyro.exposures.vae_result import VAEFit

SYNTHETIC = "synthetic"  # the flag, and the first word of a synthetic asset's name


def generate_features(
    fit: PPCAFit | VAEFit,
    *,
    dates: int | Sequence[object] | np.ndarray,
    n_assets: int,
    seed: int,
    condition: xr.DataArray | None = None,
    condition_mask: xr.DataArray | None = None,
) -> xr.Dataset:
    r"""Return synthetic rows of features: ``z ~ p(z)``, then ``x ~ p(x|z)``, noise included.

    With `condition` the latents come from the aggregated posterior of those dates instead of the
    prior: a row of them is picked at random and z drawn from its posterior, which keeps what the
    prior does not know, such as the regime of those dates. Rows are independent draws: nothing
    ties an asset to itself on the next date, nor two assets on one date.

    Parameters
    ----------
    fit : PPCAFit or VAEFit
    dates : int or datetimes, strictly increasing
        Stamps of the rows; a number means that many business days up to the end of the fit.
    n_assets : int
        Rows on each date.
    seed : int
        Global generators are left as they were.
    condition : DataArray, dims (date, asset, feature), optional
        The features of the fit, in its order.
    condition_mask : DataArray of bool, dims (date, asset), optional
        Cells of `condition` that count; all by default.

    Returns
    -------
    Dataset
        ``features`` (date, asset, feature) float32 in units of the fit's features, and
        ``tradable`` (date, asset), true throughout; no returns, so it is no panel. Attributes:
        ``synthetic=True``, ``source``, ``seed``, ``latents``, ``fitted_until`` and
        ``conditioned_until`` (the last day that the rows know of; empty without a condition).

    Raises
    ------
    SpecError
        If a count is below 1, or the dates do not increase.
    PanelError
        If `condition` has not the features of the fit, or no row.

    References
    ----------
    .. [1] Tipping, Bishop (1999); Kingma, Welling (2014).
    """
    stamps = _stamps(dates, fit.train[1])
    if n_assets < 1:
        raise SpecError(f"n_assets must be >= 1; got {n_assets}. Ask for one row a date or more.")
    rng = np.random.default_rng(seed)
    n_rows = len(stamps) * n_assets
    if condition is None:
        latents = rng.normal(size=(n_rows, _size(fit)))
        known = ""
    else:
        latents = _aggregated_posterior(fit, condition, condition_mask, n_rows, rng)
        known = day_text(condition[DATE].to_numpy().max())
    names, values = _emit(fit, latents, rng)
    coords = {
        DATE: stamps,
        ASSET: [f"{SYNTHETIC} {place + 1}" for place in range(n_assets)],
        FEATURE: names,
    }
    shape = (len(stamps), n_assets, len(names))
    return xr.Dataset(
        {
            "features": ((DATE, ASSET, FEATURE), values.reshape(shape).astype(np.float32)),
            "tradable": ((DATE, ASSET), np.ones(shape[:2], dtype=bool)),
        },
        coords,
        {
            SYNTHETIC: True,
            "source": f"ppca {fit.method}" if isinstance(fit, PPCAFit) else "vae",
            "seed": seed,
            "latents": "prior" if condition is None else "aggregated posterior",
            "fitted_until": fit.train[1],
            "conditioned_until": known,
        },
    )


def _stamps(dates: int | Sequence[object] | np.ndarray, last: str) -> np.ndarray:
    """Return the dates of the rows."""
    if isinstance(dates, int | np.integer):
        if dates < 1:
            raise SpecError(f"dates must be >= 1; got {dates}. Ask for one date or more.")
        return pd.bdate_range(end=last, periods=int(dates)).to_numpy()
    index = pd.DatetimeIndex(np.asarray(dates))
    if not len(index) or not (index.is_monotonic_increasing and index.is_unique):
        raise SpecError(
            f"dates must be one or more and strictly increase; got {len(index)} that do not. "
            "Sort them and drop duplicates."
        )
    return index.to_numpy()


def _size(fit: PPCAFit | VAEFit) -> int:
    """Return the number of latents."""
    return fit.loadings.sizes[FACTOR] if isinstance(fit, PPCAFit) else fit.spec.n_factors


def _aggregated_posterior(
    fit: PPCAFit | VAEFit,
    condition: xr.DataArray,
    mask: xr.DataArray | None,
    n_rows: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return latents (row, factor) from the posteriors of rows picked at random."""
    found = fit.posterior(condition, mask)
    means = found["mean"].to_numpy().reshape(-1, _size(fit))
    sound = np.flatnonzero(~np.isnan(means).any(axis=1))
    if not sound.size:
        raise PanelError(
            "condition must hold at least one row with an entry; got none in the mask. Choose "
            "other dates."
        )
    chosen = rng.choice(sound, size=n_rows)
    noise = rng.normal(size=(n_rows, _size(fit)))
    if isinstance(fit, PPCAFit):
        spread = found["covariance"].to_numpy().reshape(len(means), _size(fit), _size(fit))
        root = np.linalg.cholesky(spread[chosen])
        return means[chosen] + np.einsum("nkl,nl->nk", root, noise)
    return means[chosen] + found["scale"].to_numpy().reshape(means.shape)[chosen] * noise


def _emit(
    fit: PPCAFit | VAEFit, latents: np.ndarray, rng: np.random.Generator
) -> tuple[list[str], np.ndarray]:
    """Return feature names and rows drawn given the latents, noise included."""
    if isinstance(fit, PPCAFit):
        model = fit.model
        loc = latents @ model.loadings.T + model.center
        scale: np.ndarray | float = model.noise_variance**0.5
        names = fit.center[FEATURE].to_numpy().tolist()
    else:
        module = fit.module()
        with torch.no_grad():
            loc = module.decode(torch.as_tensor(latents.astype(np.float32))).numpy()
            scale = module.noise_scale.numpy()
        names = list(fit.features)
    return names, loc + scale * rng.normal(size=loc.shape)


def augment(
    train: xr.Dataset, synthetic: xr.Dataset, *, ratio: float, split: DateSplit
) -> xr.Dataset:
    """Return training features with synthetic rows beside them, and nothing but training dates.

    On each date, ``round(ratio * tradable assets)`` synthetic rows join as assets of their own.
    The result is for fitting exposures: synthetic rows have no return.

    Parameters
    ----------
    train : Dataset
        Real ``features`` (date, asset, feature) and ``tradable`` (date, asset), such as a panel's
        training dates.
    synthetic : Dataset
        From `generate_features`, on dates of `train`.
    ratio : float
        Synthetic rows per real row, > 0.
    split : DateSplit
        Which says what the training dates are.

    Returns
    -------
    Dataset
        ``features`` float32, ``tradable``, and ``synthetic`` (asset,), true for the rows that
        joined; attributes ``synthetic=True``, ``synthetic_ratio`` and the lineage of the rows.

    Raises
    ------
    SpecError
        If a date of `train` or of `synthetic` is no training date, the generator was fitted or
        conditioned on later dates than those, `train` is itself synthetic or flagged as another
        span, `synthetic` is not flagged, or it has too few assets for the ratio.
    PanelError
        If layouts or feature names differ.
    """
    _check_flags(train, synthetic)
    check_rows(train["features"], train["tradable"])
    check_rows(synthetic["features"], synthetic["tradable"])
    match_features(synthetic["features"], train[FEATURE].to_numpy(), "train")
    _check_dates(train, synthetic, split)
    if not ratio > 0:
        raise SpecError(f"ratio must be > 0; got {ratio}. Leave the panel alone for none.")
    real, pseudo = train["features"].to_numpy(), synthetic["features"].to_numpy()
    dates = train.indexes[DATE]
    places = dates.get_indexer(synthetic.indexes[DATE])
    wanted = np.rint(ratio * train["tradable"].to_numpy().sum(axis=1)).astype(int)
    least = int(wanted[places].max())
    if len(places) < len(dates) or pseudo.shape[1] < least:
        raise SpecError(
            f"synthetic must cover the {len(dates)} training dates with at least {wanted.max()} "
            f"assets for a ratio of {ratio}; got {len(places)} dates and {pseudo.shape[1]} assets. "
            "Generate more, or lower the ratio."
        )
    joined = np.zeros((len(dates), pseudo.shape[1]), dtype=bool)
    joined[places] = np.arange(pseudo.shape[1]) < wanted[places][:, None]
    placed = np.empty((len(dates), *pseudo.shape[1:]), dtype=np.float32)
    placed[places] = pseudo
    features = np.concatenate([real.astype(np.float32), placed], axis=1)
    tradable = np.concatenate([train["tradable"].to_numpy(), joined], axis=1)
    assets = [*train[ASSET].to_numpy().tolist(), *synthetic[ASSET].to_numpy().tolist()]
    flags = np.arange(len(assets)) >= real.shape[1]
    lineage = {f"synthetic_{key}": value for key, value in synthetic.attrs.items()}
    lineage.pop("synthetic_synthetic")
    return xr.Dataset(
        {
            "features": ((DATE, ASSET, FEATURE), features),
            "tradable": ((DATE, ASSET), tradable),
            SYNTHETIC: ((ASSET,), flags),
        },
        {DATE: train[DATE].to_numpy(), ASSET: assets, FEATURE: train[FEATURE].to_numpy()},
        {**train.attrs, SYNTHETIC: True, "synthetic_ratio": ratio, **lineage},
    )


def _check_flags(train: xr.Dataset, synthetic: xr.Dataset) -> None:
    """Refuse a training set that is flagged otherwise, and rows that are not flagged synthetic."""
    for name, dataset in (("train", train), (SYNTHETIC, synthetic)):
        missing = {"features", "tradable"} - set(dataset.data_vars)
        if missing:
            raise PanelError(
                f"{name} must have features and tradable; got none of {sorted(missing)}. "
                "Use build_panel or generate_features."
            )
    if train.attrs.get(SYNTHETIC, False):
        raise SpecError(
            "train must be real; got a dataset flagged synthetic. Augment the real panel once."
        )
    span = train.attrs.get("span", "train")
    if span != "train":
        raise SpecError(f"train must be training dates; got span={span!r}. Never augment others.")
    if synthetic.attrs.get(SYNTHETIC) is not True:
        raise SpecError(
            "synthetic must be flagged synthetic=True; got no such attribute. Use "
            "generate_features."
        )


def _check_dates(train: xr.Dataset, synthetic: xr.Dataset, split: DateSplit) -> None:
    """Refuse rows on, or knowledge of, dates outside the training span."""
    first, last = split.train.first, split.train.last
    for name, dataset in (("train", train), (SYNTHETIC, synthetic)):
        days = [day_text(date) for date in dataset[DATE].to_numpy()]
        outside = [f"{day} ({_span_of(day, split)})" for day in days if not first <= day <= last]
        if outside:
            raise SpecError(
                f"{name} must lie within the training dates {first} to {last}; got "
                f"{len(outside)} others at {name_places(outside)}. Select the training dates: "
                "validation and test stay real."
            )
    for key in ("fitted_until", "conditioned_until"):
        day = str(synthetic.attrs.get(key, ""))
        if day > last:
            raise SpecError(
                f"synthetic rows must know nothing after {last}, the last training date; got "
                f"{key} {day}. Fit and condition the generator on training dates."
            )
    odd = ~synthetic.indexes[DATE].isin(train.indexes[DATE])
    if odd.any():
        places = [day_text(date) for date in synthetic[DATE].to_numpy()[odd]]
        raise SpecError(
            f"synthetic must be on dates of train; got {len(places)} others at "
            f"{name_places(places)}. Pass dates=train['date'] to generate_features."
        )
    twice = set(train[ASSET].to_numpy().tolist()) & set(synthetic[ASSET].to_numpy().tolist())
    if twice:
        raise SpecError(
            f"synthetic assets must have names of their own; got {name_places(sorted(twice))} "
            "in train too. Rename them."
        )


def _span_of(day: str, split: DateSplit) -> str:
    """Return the name of the span that a day lies in."""
    for name in ("validation", "test"):
        span = getattr(split, name)
        if span is not None and span.first <= day <= span.last:
            return name
    return "purged or outside"
