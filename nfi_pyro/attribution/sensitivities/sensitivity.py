r"""Sensitivities: how a number of an asset's law changes with its exposures, exactly.

    g_i = dy / d beta_i                 the Jacobian, (asset, factor)
    H_i = d2y / d beta_i d beta_i'      the Hessian, (asset, factor, factor_other)

for y the mean (deck A, lines 153-167, 259-273), variance, standard deviation, Sharpe ratio, value
at risk or expected shortfall of the asset's return. One mechanism prices all assets, so they are
derivatives of one function at different points; the factors' law of the date is held.
"""

import warnings
from collections.abc import Iterable, Sequence

import torch
import xarray as xr

from nfi_pyro.attribution.sensitivities.dated_laws import FixedFeatureLaw, dated_laws
from nfi_pyro.attribution.sensitivities.dated_tables import DatedTables
from nfi_pyro.attribution.sensitivities.targets import (
    Target,
    TargetJets,
    chain_target,
    is_kinked,
)
from nfi_pyro.data.panel import Panel
from nfi_pyro.dims import ASSET
from nfi_pyro.errors import SpecError
from nfi_pyro.posterior.blocks import DateRange
from nfi_pyro.posterior.exposure_pricing import PricingLaw
from nfi_pyro.posterior.fits import check_fits, join_chains
from nfi_pyro.svi.trained import SVIFit

CHUNK = 1024
PER_EXPOSURE = "per unit exposure"


def target_derivatives(
    law: PricingLaw, target: str | Target = "mean", *, order: int = 1, chunk: int = CHUNK
) -> TargetJets:
    """Return a target and its derivatives by exposure for all assets of a law, exact.

    Closed form in the law's parameters where it has them (every model of this package), by
    `torch.func` otherwise; the Hessian of the mean skips the mixture altogether.

    Parameters
    ----------
    law : PricingLaw
        Of one date.
    target : str or Target
    order : {1, 2}
        Highest derivative.
    chunk : int
        Most assets in hand at a time: memory is that of ``chunk * factor ** order``.

    Returns
    -------
    TargetJets
        Rows are the law's assets; decimal return (squared for ``variance``) per unit exposure.

    Raises
    ------
    SpecError
        If an option is out of range.

    Warns
    -----
    UserWarning
        If second derivatives of the mean are 0 everywhere although first ones differ: a piecewise
        linear network, whose interactions a Hessian cannot show.
    """
    chosen = Target.of(target)
    _check(order, chunk)
    if not len(law.beta):
        empty = law.beta.new_zeros(0, law.beta.shape[-1])
        second = empty.new_zeros(0, *empty.shape[1:] * 2) if order > 1 else None
        return TargetJets(empty.new_zeros(0), empty, second)
    with torch.no_grad():
        # Features that are held belong to one asset each: such a law takes all rows or none.
        rows = [law.beta] if isinstance(law, FixedFeatureLaw) else law.beta.split(chunk)
        parts = [_derivatives(law, chosen, beta, order) for beta in rows]
    hessians = [part.hessian for part in parts if part.hessian is not None]
    found = TargetJets(
        torch.cat([part.value for part in parts]),
        torch.cat([part.gradient for part in parts]),
        torch.cat(hessians) if hessians else None,
    )
    if chosen.name == "mean":
        _warn_of_kinks(found)
    return found


def sensitivity(
    fits: SVIFit | Sequence[SVIFit],
    panel: Panel,
    *,
    target: str | Target = "mean",
    order: int = 1,
    dates: DateRange | None = None,
    chunk: int = CHUNK,
) -> xr.Dataset:
    """Return the Jacobian, and on request the Hessian, of a target for every asset and date.

    Parameters
    ----------
    fits : SVIFit or sequence of SVIFit
        Of any pricing model; several are restarts of one model, or draws of its last layers
        (`draw_fits`). factor_vae prices hidden features: they are held, so the Jacobian of the
        mean is m_t for all assets and its Hessian 0.
    panel : Panel
        With the fits' features and exposures; its `forward_return` is not read.
    target : str or Target
        A name of `Target`, or one with its level or risk-free return.
    order : {1, 2}
        2 adds the Hessian, which takes ``factor`` times the Jacobian's memory.
    dates : pair of str, optional
        First and last date, inclusive. By default every date with a full window.
    chunk : int
        Most assets in hand at a time.

    Returns
    -------
    Dataset
        `value`, `jacobian`, `hessian` and `beta` over ([chain], date, asset, factor,
        factor_other), float64, NaN for assets without a law on the date. Known at the close of
        `date`; units in attrs.

    Raises
    ------
    SpecError
        If an option is out of range, or fits are of several models or dates.
    SplitError, PanelError
        If no date has a full window, or the panel is not the fits' kind.
    """
    chosen = Target.of(target)
    _check(order, chunk)
    members = check_fits(fits)
    found = [
        _over_dates(dated_laws(fit, panel, dates=dates), chosen, panel, order, chunk)
        for fit in members
    ]
    return join_chains(found, fits)


def _derivatives(law: PricingLaw, target: Target, beta: torch.Tensor, order: int) -> TargetJets:
    """Return the derivatives of one chunk of rows."""
    if target.name == "mean" and order > 1:
        gradient, hessian = law.function.mean_derivatives(beta)
        scale = law.return_scale
        return TargetJets(law.marginal(beta).mean, gradient * scale, hessian * scale)
    return chain_target(target, law.jets(beta, order))


def _over_dates(
    laws: Iterable[PricingLaw], target: Target, panel: Panel, order: int, chunk: int
) -> xr.Dataset:
    """Return the variables of one fit over the panel's assets."""
    tables = DatedTables(panel[ASSET].values)
    for law in laws:
        found = target_derivatives(law, target, order=order, chunk=chunk)
        parts = {"value": found.value, "jacobian": found.gradient, "beta": law.beta}
        if found.hessian is not None:
            parts["hessian"] = found.hessian
        tables.add(law, parts)
    slope = f"{target.unit} {PER_EXPOSURE}"
    units = {"value": target.unit, "jacobian": slope, "beta": "1", "hessian": f"{slope} squared"}
    return tables.dataset(units, target.attrs)


def _check(order: int, chunk: int) -> None:
    """Refuse options out of range."""
    if order not in (1, 2):
        raise SpecError(f"order must be 1 or 2; got {order}. 2 adds the Hessian.")
    if chunk < 1:
        raise SpecError(f"chunk must be at least 1 asset; got {chunk}. Use {CHUNK}.")


def _warn_of_kinks(found: TargetJets) -> None:
    """Warn where interactions cannot be seen because the network is piecewise linear."""
    if found.hessian is not None and is_kinked(found.gradient, found.hessian):
        warnings.warn(
            "second derivatives are 0 at every asset although first ones differ: the network is "
            "piecewise linear (ReLU), and its interactions are in its kinks. Use a smooth "
            "activation (tanh, silu, softplus) to attribute interactions.",
            UserWarning,
            stacklevel=3,
        )
