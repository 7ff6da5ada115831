r"""Second-order Taylor attribution: a number of an asset's law in parts that add up.

With ``d = beta_i - beta_0`` (deck A, lines 169-175)

    y(beta_i) - y(beta_0) = g'd  +  1/2 sum_j H_jj d_j^2  +  sum_{j<k} H_jk d_j d_k  +  remainder

g and H at beta_0. The remainder is what terms of third and higher order make, and always shown.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
import xarray as xr
from torch import Tensor

from nfi_pyro.attribution.sensitivities.dated_laws import FixedFeatureLaw, dated_laws
from nfi_pyro.attribution.sensitivities.dated_tables import DatedTables
from nfi_pyro.attribution.sensitivities.sensitivity import target_derivatives
from nfi_pyro.attribution.sensitivities.targets import Target
from nfi_pyro.data.panel import Panel
from nfi_pyro.dims import ASSET, DATE, FACTOR
from nfi_pyro.errors import ShapeError, SpecError, WeightsError, name_places
from nfi_pyro.posterior.blocks import DateRange
from nfi_pyro.posterior.exposure_pricing import PricingLaw
from nfi_pyro.posterior.fits import check_fits, join_chains
from nfi_pyro.posterior.portfolio_law import align_weights
from nfi_pyro.svi.trained import SVIFit

PARTS = ("linear", "quadratic", "cross", "remainder")
Base = str | Mapping[str, float] | pd.Series | xr.DataArray | Sequence[float] | np.ndarray


def taylor_attribution(
    fits: SVIFit | Sequence[SVIFit],
    panel: Panel,
    *,
    base: Base = "mean",
    target: str | Target = "mean",
    dates: DateRange | None = None,
    pairs: bool = False,
) -> xr.Dataset:
    """Return a target of every asset as base value plus linear, pure, cross and remainder parts.

    ``value = base_value + (linear + quadratic + cross).sum("factor") + remainder``, to rounding.

    Parameters
    ----------
    fits, panel, target, dates
        As in `sensitivity`.
    base : {"mean", "zero"}, weights of a benchmark, DataArray (factor,) or (factor,) numbers
        Exposure that is expanded around: the mean of the date's assets (where the law is known
        best); 0, as the deck has it, which is the mean only where exposures are centred by date;
        ``B'w`` of a benchmark given as mapping or Series of asset to weight; or given exposures.
    pairs : bool
        Whether to add `interaction`, the cross terms by pair, which takes ``factor`` times the
        memory of the rest.

    Returns
    -------
    Dataset
        Over ([chain], date, asset): `value`, `base_value`, `remainder`; by factor also `linear`,
        `quadratic` and `cross`, half of every pair's cross term with each of its two factors;
        `interaction` (..., factor, factor_other), symmetric, 0 on the diagonal, sums to `cross`.
        `base` (date, factor). NaN for assets without a law. In the target's unit.

    Raises
    ------
    SpecError, ShapeError, WeightsError
        If an option is unknown, numbers are not one by factor, or a benchmark's assets have no
        law on a date.
    """
    chosen = Target.of(target)
    members = check_fits(fits)
    found = []
    for fit in members:
        tables = DatedTables(panel[ASSET].values)
        for law in dated_laws(fit, panel, dates=dates):
            parts, point = expand_law(law, chosen, base)
            if not pairs:
                del parts["interaction"]
            tables.add(law, parts, {"base": point})
        units = dict.fromkeys((*PARTS, "value", "base_value", "interaction"), chosen.unit)
        found.append(tables.dataset(units | {"base": "1"}, chosen.attrs))
    return join_chains(found, fits)


def taylor_book(found: xr.Dataset, weights: xr.DataArray | pd.Series) -> xr.Dataset:
    """Return a Taylor attribution of the mean, summed over a book.

    Parameters
    ----------
    found : Dataset
        As `taylor_attribution` returns, of the target ``mean``: no other adds up over assets.
    weights : DataArray, shape (date, asset) or (asset,), or Series by asset
        Fractions of capital; 0 for assets that are not held.

    Returns
    -------
    Dataset
        Over ([chain], date, factor, factor_other), decimal return.

    Raises
    ------
    SpecError
        If the target is another.
    WeightsError
        If an asset is held that has no law on a date.
    """
    if found.attrs["target"] != "mean":
        raise SpecError(
            f"a book's parts must be of the mean; got {found.attrs['target']!r}. Risk does not add "
            "up over assets: use `portfolio_sensitivity` or `risk_contributions`."
        )
    if isinstance(weights, pd.Series):
        weights = weights.rename_axis(ASSET).to_xarray()
    if ASSET not in weights.dims or not set(weights.dims) <= {DATE, ASSET}:
        raise ShapeError(
            f"weights must be over asset, or date and asset; got {weights.dims} at taylor_book. "
            "Name the dimensions."
        )
    unknown = weights[ASSET].values[~np.isin(weights[ASSET].values, found[ASSET].values)]
    held = weights.reindex({ASSET: found[ASSET]}, fill_value=0.0)
    missing = (held != 0.0) & found["value"].isnull()
    if unknown.size or bool(missing.any()):
        names = [*unknown, *found[ASSET].values[missing.any(set(missing.dims) - {ASSET}).values]]
        raise WeightsError(
            f"assets with weight must have a law on every date; got none for {name_places(names)}. "
            "Sell them, or choose other dates."
        )
    summed = [name for name, part in found.data_vars.items() if ASSET in part.dims]
    parts = {
        name: (found[name].fillna(0.0) * held).sum(ASSET).assign_attrs(found[name].attrs)
        for name in summed
    }
    return xr.Dataset({**parts, "base": found["base"]}, attrs=found.attrs)


def expand_law(law: PricingLaw, target: Target, base: Base) -> tuple[dict[str, Tensor], Tensor]:
    """Return the parts of one date by asset, and its base."""
    point = _base_of(law, base)
    # Where features are held, each asset has a law of its own at the base.
    rows = len(law.beta) if isinstance(law, FixedFeatureLaw) else 1
    there = target_derivatives(replace(law, beta=point.expand(rows, -1)), target, order=2)
    value, base_value = target_derivatives(law, target).value, there.value
    gap = law.beta - point
    linear = there.gradient * gap
    product = torch.zeros_like(gap[:, :, None]) if there.hessian is None else there.hessian
    product = 0.5 * product * gap.unsqueeze(-1) * gap.unsqueeze(-2)
    quadratic = product.diagonal(dim1=-2, dim2=-1)
    interaction = product - torch.diag_embed(quadratic)
    base_value = base_value.expand_as(value)
    cross = interaction.sum(-1)
    remainder = value - base_value - (linear + quadratic + cross).sum(-1)
    parts = {
        "value": value,
        "base_value": base_value,
        "linear": linear,
        "quadratic": quadratic,
        "cross": cross,
        "interaction": interaction,
        "remainder": remainder,
    }
    return parts, point


def _base_of(law: PricingLaw, base: Base) -> Tensor:
    """Return the exposure that is expanded around, (factor,)."""
    n_factors = law.beta.shape[-1]
    if isinstance(base, str):
        if base not in ("mean", "zero"):
            raise SpecError(
                f"base must be mean, zero, weights or numbers by factor; got {base!r}. Use mean."
            )
        if base == "zero" or not len(law.beta):
            return law.beta.new_zeros(n_factors)
        return law.beta.mean(0)
    if isinstance(base, Mapping | pd.Series):
        everything = np.ones(len(law.assets), dtype=bool)
        try:
            weights = align_weights(base, law.assets, everything)
        except WeightsError as error:
            raise WeightsError(f"{error} It is the base of {str(law.date)[:10]}.") from error
        return law.beta.T @ torch.from_numpy(weights)
    if isinstance(base, xr.DataArray):
        names = list(law.factors)
        if base.dims != (FACTOR,) or sorted(map(str, base[FACTOR].values)) != sorted(names):
            raise ShapeError(
                f"a labelled base must have the factors {name_places(names)}; got {base.dims} of "
                f"{name_places(base[FACTOR].values) if FACTOR in base.coords else 'no labels'}. "
                "Label it by factor."
            )
        base = base.sel({FACTOR: names}).to_numpy()
    numbers = torch.as_tensor(np.asarray(base, dtype=np.float64))
    if numbers.shape != (n_factors,) or not bool(numbers.isfinite().all()):
        raise ShapeError(
            f"a base must be {n_factors} finite numbers, one by factor; got shape "
            f"{tuple(numbers.shape)}. Use base='mean'."
        )
    return numbers
