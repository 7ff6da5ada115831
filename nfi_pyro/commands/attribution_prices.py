"""Parts of an attribution page from the laws: prices of exposures, risk slopes, Taylor terms."""

from functools import partial

import xarray as xr

from nfi_pyro.attribution.sensitivities.portfolio_sensitivity import portfolio_sensitivity
from nfi_pyro.attribution.sensitivities.taylor import taylor_attribution, taylor_book
from nfi_pyro.commands.attribution_task import AttributionTask
from nfi_pyro.dims import ASSET, DATE
from nfi_pyro.portfolio.risk import equal_weights
from nfi_pyro.posterior.intervals import factors_comparable, interval_over

_MEAN = "mean", "the mean exposure of the date's assets"
MIN_NORM, PARALLEL = "min_norm", "parallel"


def slopes_of(task: AttributionTask, target: str) -> xr.Dataset:
    """Return a target of the book by its exposures, on the visited dates, with intervals."""
    # A parallel shift needs weights that sum to 1 on every date. Those of a long-only book still
    # do when what has no law is scaled away; those of a long-short book need not.
    book = task.book
    plain = book is None or (bool((book >= 0.0).all()) and abs(book.sum() - 1.0) <= 1e-6)
    shift = PARALLEL if plain else MIN_NORM
    measure = partial(
        portfolio_sensitivity,
        panel=task.panel,
        weights=task.book,
        target=target,
        shift=shift,
        dates=task.visit(),
    )
    found = measure(task.fit)
    fits = task.members.fits
    if not fits:
        return found
    several = measure(fits)
    names = ["value", *(["gradient"] if factors_comparable(fits) else [])]
    bounds = interval_over(several[names])
    for side in ("lower", "upper"):
        one = bounds.sel(bound=side, drop=True)
        found = found.assign({f"{name}_{side}": one[name] for name in names})
    return found


def taylor_of(task: AttributionTask) -> xr.Dataset:
    """Return the Taylor parts of the book's expected return on the last date."""
    day = str(task.last)[:10]
    book = equal_weights(task.laws) if task.book is None else task.book
    weights = xr.DataArray(book.to_numpy(), {ASSET: [str(name) for name in book.index]}, ASSET)
    # An equal-weight book is at the mean exposure: from there it would have no linear part.
    base, about = ("zero", "zero exposure") if task.book is None else _MEAN
    expand = partial(taylor_attribution, panel=task.panel, base=base, dates=(day, day))
    parts = taylor_book(expand(task.fit), weights).isel({DATE: 0}, drop=True)
    fits = task.members.fits
    if fits:
        several = taylor_book(expand(fits), weights).isel({DATE: 0}, drop=True)
        summed = xr.Dataset({"value": several["value"]})
        if factors_comparable(fits):
            summed["part"] = several["linear"] + several["quadratic"] + several["cross"]
        bounds = interval_over(summed)
        for side in ("lower", "upper"):
            one = bounds.sel(bound=side, drop=True)
            parts = parts.assign({f"{name}_{side}": one[name] for name in one.data_vars})
    return parts.assign_attrs(parts.attrs | {"date": day, "base": about})
