"""How much the price of a factor differs from asset to asset, over dates and over restarts."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import xarray as xr

from nfi_pyro.data.panel import Panel
from nfi_pyro.dims import CHAIN, DATE, FACTOR
from nfi_pyro.posterior.blocks import DateRange
from nfi_pyro.posterior.exposure_pricing import PricingLaw, pricing_laws, require_exposure_pricing
from nfi_pyro.posterior.fits import check_fits, join_chains
from nfi_pyro.posterior.intervals import attained_level, factors_comparable
from nfi_pyro.svi.trained import SVIFit

_DIMS = {
    "heterogeneity": (DATE, FACTOR),
    "price_of_risk": (DATE, FACTOR),
    "total_heterogeneity": (DATE,),
}
_ATTRS = {
    "heterogeneity": {"units": "decimal return", "long_name": "std_i(g_ij) sd_i(beta_ij)"},
    "price_of_risk": {"units": "decimal return per unit exposure"},
    "total_heterogeneity": {
        "units": "decimal return",
        "long_name": "root of trace(Cov_i(g) Cov_i(beta))",
    },
}


class Heterogeneity(NamedTuple):
    """Spread of the prices of one law over its assets.

    Attributes
    ----------
    by_factor : ndarray, shape (factor,)
        Decimal return, >= 0.
    total : float
        Decimal return, >= 0; the same for every choice of factors that spans the same law.
    """

    by_factor: np.ndarray
    total: float


def law_heterogeneity(law: PricingLaw) -> Heterogeneity:
    r"""Return how much the prices of a date's law differ over its assets.

    The factor return of asset i is ``g_i = grad alpha(beta_i) + m_t``. By factor:
    ``std_i(g_ij) sd_i(beta_ij)``, the return that an asset with one sd more exposure earns when
    its own price is one sd higher, in return units because a ratio to the mean price explodes
    where that is near zero. In total: ``sqrt(trace(Cov_i(g) Cov_i(beta)))``, which no map
    ``beta -> A^-T beta`` with ``g -> A g`` changes. Moments are over the assets of the date, none
    of them a sample of more (ddof 0).

    Parameters
    ----------
    law : PricingLaw

    Returns
    -------
    Heterogeneity
        0 where pricing is linear; NaN on a date with fewer than two assets.
    """
    with torch.no_grad():
        price = law.jacobian().numpy()
    beta = law.beta.numpy()
    if len(beta) < 2:
        return Heterogeneity(np.full(beta.shape[-1], np.nan), np.nan)
    price, beta = price - price.mean(0), beta - beta.mean(0)
    by_factor = np.sqrt((price**2).mean(0) * (beta**2).mean(0))
    product = (price.T @ price / len(beta)) * (beta.T @ beta / len(beta))
    # A trace of two positive semi-definite matrices; below 0 it is rounding.
    return Heterogeneity(by_factor, float(np.sqrt(max(product.sum(), 0.0))))


def risk_price_heterogeneity(
    fits: SVIFit | Sequence[SVIFit], panel: Panel, *, dates: DateRange | None = None
) -> xr.Dataset:
    """Return the heterogeneity of every factor's price on every date, and how sure it is.

    Parameters
    ----------
    fits : SVIFit or sequence of SVIFit
        Of nfi, mixture_pricing, neural_factor or linear_factor; several are restarts of one
        model, for example with other seeds.
    panel : Panel
        With the fits' features and exposures; its `forward_return` is not read.
    dates : pair of str, optional
        First and last date, inclusive. By default every date with a full window.

    Returns
    -------
    Dataset
        `heterogeneity` (date, factor) and `total_heterogeneity` (date), decimal return, as in
        `law_heterogeneity`; `price_of_risk` (date, factor), decimal return per unit exposure,
        the mean of the date's factors that all assets share (0 without any). A sequence of fits
        adds a first dimension `chain`, and `total_heterogeneity_lower` and ``_upper`` (date),
        the smallest and largest over chains; `heterogeneity_lower` and ``_upper`` (date, factor)
        too where `factors_comparable`: exposures are given, or all are draws of one fit. Learned
        factors are not aligned between restarts: factor z0 of one is not z0 of another. One fit
        has no interval. Attrs `interval` and `factor_interval` say so.

    Raises
    ------
    SpecError
        If the model prices on hidden features (factor_vae), there is no fit, or the fits are of
        several models, factors or dates.
    SplitError, PanelError
        If no date has a full window, or the panel is not the fits' kind.
    """
    chains = check_fits(fits)
    for fit in chains:
        require_exposure_pricing(fit)
    joined = join_chains([_over_dates(fit, panel, dates) for fit in chains], fits)
    if CHAIN not in joined.dims:
        none = "none: one fit says nothing about restarts"
        return joined.assign_attrs(interval=none, factor_interval=none)
    return _with_intervals(joined, aligned=factors_comparable(chains))


def _over_dates(fit: SVIFit, panel: Panel, dates: DateRange | None) -> xr.Dataset:
    """Return the variables of one fit, without intervals."""
    days, rows = [], []
    factors: tuple[str, ...] = ()
    for law in pricing_laws(fit, panel, dates=dates):
        spread = law_heterogeneity(law)
        rows.append((spread.by_factor, law.price_of_risk().numpy(), spread.total))
        days.append(law.date)
        factors = law.factors
    columns = (np.stack(column) for column in zip(*rows, strict=True))
    return xr.Dataset(
        {
            name: (_DIMS[name], values, _ATTRS[name])
            for name, values in zip(_DIMS, columns, strict=True)
        },
        coords={DATE: np.array(days), FACTOR: list(factors)},
        attrs={"model": str(fit.provenance["model"]), "unit": str(fit.label["unit"])},
    )


def _with_intervals(found: xr.Dataset, *, aligned: bool) -> xr.Dataset:
    """Return the dataset with the range over chains of what is comparable between them."""
    n_chains = found.sizes[CHAIN]
    names = ["total_heterogeneity", *(["heterogeneity"] if aligned else [])]
    bounds = {}
    for name in names:
        attrs = {"units": "decimal return"}
        bounds[f"{name}_lower"] = found[name].min(CHAIN).assign_attrs(attrs)
        bounds[f"{name}_upper"] = found[name].max(CHAIN).assign_attrs(attrs)
    share = attained_level(n_chains, 1.0)
    interval = (
        f"smallest and largest over {n_chains} chains; one more restart falls between them with "
        f"probability {share:.2f}"
    )
    missing = "left out: learned factors are not aligned between restarts"
    return found.assign(bounds).assign_attrs(
        interval=interval, factor_interval=interval if aligned else missing
    )
