r"""Sensitivities of a portfolio's expected return and risk to its exposures, with the weights in.

With D how the assets' exposures move (`exposure_shift`), ``E = sum_i w_i m_i``, and, where assets
share factors of covariance S,

    V = b'Sb + sum_i w_i^2 v_i(beta_i)

v_i being the specific variance. Under a copula the assets' correlations are held and their
standard deviations move: ``V = |sum_i w_i sd_i u_i|^2 + sum_i w_i^2 sd_i^2 (1 - |u_i|^2)``, to
first order in the correlations of normal scores, as in `ReturnForecast.covariance`.
"""

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from nfi_pyro.attribution.book_moments import CopulaColumns, score_covariance
from nfi_pyro.attribution.sensitivities.dated_laws import dated_laws_of_pass
from nfi_pyro.attribution.sensitivities.dated_tables import DatedTables
from nfi_pyro.attribution.sensitivities.sensitivity import target_derivatives
from nfi_pyro.attribution.sensitivities.shifts import exposure_shift
from nfi_pyro.attribution.sensitivities.targets import Target, TargetJets
from nfi_pyro.data.panel import Panel
from nfi_pyro.dims import ASSET
from nfi_pyro.errors import SpecError, WeightsError
from nfi_pyro.posterior.blocks import DateRange, open_pass
from nfi_pyro.posterior.dated_weights import DatedWeights
from nfi_pyro.posterior.exposure_pricing import PricingLaw
from nfi_pyro.posterior.fits import check_fits, join_chains
from nfi_pyro.posterior.portfolio_law import Weights
from nfi_pyro.svi.trained import SVIFit

OF_A_BOOK = ("mean", "variance", "standard_deviation", "sharpe")


def portfolio_sensitivity(
    fits: SVIFit | Sequence[SVIFit],
    panel: Panel,
    weights: Weights | None = None,
    *,
    target: str | Target = "mean",
    shift: str | xr.DataArray = "parallel",
    dates: DateRange | None = None,
) -> xr.Dataset:
    """Return gradient and Hessian of a portfolio's target by its exposures, date by date, exact.

    Parameters
    ----------
    fits, panel, dates
        As in `sensitivity`.
    weights : mapping, Series, DataArray (asset,) or (date, asset), optional
        Fractions of capital; equal weights of the assets with a law by default.
    target : str or Target
        ``mean``, ``variance``, ``standard_deviation`` or ``sharpe``. Value at risk and expected
        shortfall of a portfolio have no closed form: `risk_contributions` takes them apart.
    shift : str or DataArray
        How the assets' exposures move, see `exposure_shift`.

    Returns
    -------
    Dataset
        Over ([chain], date, factor, factor_other): `value`; `exposure` ``B'w``; `gradient`;
        `hessian`; `contribution` = exposure * gradient, the linear reading; `uncovered`, share of
        absolute weight without a law: the rest is scaled up to the whole. In the target's unit.

    Raises
    ------
    SpecError
        If an option is unknown, the fits are of several models, or risk is asked of a fit that
        does not say how assets depend on each other.
    WeightsError
        If a weight is of no use, no asset held has a law on a date, or weights do not sum to 1
        where the shift needs that.
    """
    chosen = Target.of(target)
    if chosen.name not in OF_A_BOOK:
        raise SpecError(
            f"the target of a portfolio must be one of {', '.join(OF_A_BOOK)}; got {chosen.name}. "
            "Use `risk_contributions` for the tail."
        )
    found = []
    for fit in check_fits(fits):
        if chosen.name != "mean":
            _require_dependence(fit)
        visit = open_pass(fit, panel, dates)
        book = DatedWeights(weights, visit.dates, panel[ASSET].values)
        tables = DatedTables(panel[ASSET].values)
        for place, law in enumerate(dated_laws_of_pass(fit, visit)):
            held = book.on(place, np.isin(panel[ASSET].values, law.assets))
            if held is None:
                raise WeightsError(
                    "a portfolio must hold an asset with a law; got none on "
                    f"{str(law.date)[:10]}. Choose other dates."
                )
            own = torch.from_numpy(held.weights) / (1.0 - held.uncovered)
            jets = book_derivatives(law, own, exposure_shift(law, own, shift), chosen, fit)
            exposure = own @ law.beta
            parts = {
                "value": jets.value,
                "exposure": exposure,
                "gradient": jets.gradient,
                "contribution": exposure * jets.gradient,
                "hessian": jets.hessian,
                "uncovered": torch.tensor(held.uncovered),
            }
            tables.add(law, None, {k: v for k, v in parts.items() if v is not None})
        slope = f"{chosen.unit} per unit exposure"
        units = {"value": chosen.unit, "exposure": "1", "gradient": slope, "uncovered": "1"}
        units |= {"hessian": f"{slope} squared", "contribution": chosen.unit}
        name = shift if isinstance(shift, str) else "given"
        found.append(tables.dataset(units, chosen.attrs | {"shift": name}))
    return join_chains(found, fits)


def book_derivatives(
    law: PricingLaw, weights: Tensor, shift: Tensor, target: Target, fit: SVIFit
) -> TargetJets:
    """Return a portfolio's target with its derivatives by its exposures.

    Parameters
    ----------
    law : PricingLaw
        Of one date.
    weights : Tensor, shape (row,)
    shift : Tensor, shape (row, factor)
        Of `exposure_shift`.
    target : Target
    fit : SVIFit
        Where the law is from: its copula, if any.

    Returns
    -------
    TargetJets
        Value (), gradient (factor,), Hessian (factor, factor).
    """
    if target.name == "mean":
        return _mean(law, weights, shift)
    variance = _variance(law, weights, shift, fit)
    if target.name == "variance":
        return variance
    deviation = _root(variance)
    if target.name == "standard_deviation":
        return deviation
    return _ratio(_mean(law, weights, shift), deviation, target.risk_free)


def _require_dependence(fit: SVIFit) -> None:
    """Refuse the risk of a portfolio whose assets' dependence is not known."""
    if fit.copula is None and not fit.provenance["factors"]:
        raise SpecError(
            "the risk of a portfolio must know how assets depend on each other; got a fit of "
            f"{fit.model.name} without factors or a copula. Fit it again."
        )


def _mean(law: PricingLaw, weights: Tensor, shift: Tensor) -> TargetJets:
    """Return the portfolio's expected return along the shift."""
    return _sum_over_assets(target_derivatives(law, "mean", order=2), weights, shift)


def _sum_over_assets(jets: TargetJets, weights: Tensor, shift: Tensor) -> TargetJets:
    """Return ``sum_i weights_i y_i`` moved along the shift."""
    gradient = torch.einsum("n,nj,nj->j", weights, jets.gradient, shift)
    hessian = None
    if jets.hessian is not None:
        hessian = torch.einsum("n,njk,nj,nk->jk", weights, jets.hessian, shift, shift)
    return TargetJets(weights @ jets.value, gradient, hessian)


def _variance(law: PricingLaw, weights: Tensor, shift: Tensor, fit: SVIFit) -> TargetJets:
    """Return the portfolio's variance along the shift."""
    own = target_derivatives(law, "variance", order=2)
    if law.function.design != "none":
        return _shared_factors(law, own, weights, shift)
    if fit.copula is None:
        return _sum_over_assets(own, weights.square(), shift)
    return _held_correlations(law, weights, shift, fit)


def _shared_factors(law: PricingLaw, own: TargetJets, weights: Tensor, shift: Tensor) -> TargetJets:
    """Return ``b'Sb + sum_i w_i^2 v_i``, with v_i what the asset's variance has beyond x'Sx."""
    every = law.function.factor_scale.square() * law.return_scale**2
    beta, square = law.beta, every[-law.beta.shape[-1] :]
    constant = every[: len(every) - len(square)].sum()  # an intercept's: it does not move
    total, exposure, moved = weights.sum(), weights @ beta, weights @ shift
    gradient = own.gradient - 2.0 * beta * square
    hessian = None if own.hessian is None else own.hessian - 2.0 * square.diag()
    value = own.value - beta.square() @ square - constant
    specific = _sum_over_assets(TargetJets(value, gradient, hessian), weights.square(), shift)
    return TargetJets(
        exposure.square() @ square + total.square() * constant + specific.value,
        2.0 * exposure * square * moved + specific.gradient,
        None if specific.hessian is None
        else (2.0 * square * moved.square()).diag() + specific.hessian,
    )  # fmt: skip


def _held_correlations(law: PricingLaw, weights: Tensor, shift: Tensor, fit: SVIFit) -> TargetJets:
    """Return the variance under a copula whose correlations are held while deviations move."""
    columns = CopulaColumns.of(fit.copula, law.beta)
    own = target_derivatives(law, "standard_deviation", order=2)
    loading = (
        law.beta.new_zeros(len(law.beta), 1)
        if columns is None
        else columns.loadings(columns.columns(law.beta))
    )
    share = (score_covariance(law.marginal()) / own.value).unsqueeze(-1) * loading
    left = 1.0 - share.square().sum(-1)
    alone = weights.square() * left
    slope = own.gradient * shift
    second = law.beta.new_zeros(()) if own.hessian is None else own.hessian
    bend = second * shift.unsqueeze(-1) * shift.unsqueeze(-2)
    held = weights.unsqueeze(-1) * share  # (row, column)
    total, steps = held.mT @ own.value, held.mT @ slope
    bends = torch.einsum("nc,njk->cjk", held, bend)
    value = total.square().sum() + alone @ own.value.square()
    gradient = 2.0 * (total @ steps + (alone * own.value) @ slope)
    outer = torch.einsum("cj,ck->jk", steps, steps) + torch.einsum("c,cjk->jk", total, bends)
    single = torch.einsum("n,nj,nk->jk", alone, slope, slope)
    single = single + torch.einsum("n,njk->jk", alone * own.value, bend)
    return TargetJets(value, gradient, 2.0 * (outer + single))


def _root(variance: TargetJets) -> TargetJets:
    """Return the square root with its derivatives."""
    root = variance.value.sqrt()
    gradient = variance.gradient / (2.0 * root)
    hessian = None
    if variance.hessian is not None:
        hessian = variance.hessian / (2.0 * root) - torch.outer(gradient, gradient) / root
    return TargetJets(root, gradient, hessian)


def _ratio(mean: TargetJets, deviation: TargetJets, risk_free: float) -> TargetJets:
    r"""Return ``(E - r) / sd``; ``dS = dE / sd - (E - r) dsd / sd^2``."""
    ratio = (mean.value - risk_free) / deviation.value
    gradient = (mean.gradient - ratio * deviation.gradient) / deviation.value
    hessian = None
    if mean.hessian is not None and deviation.hessian is not None:
        both = torch.outer(gradient, deviation.gradient)
        hessian = (mean.hessian - ratio * deviation.hessian - both - both.mT) / deviation.value
    return TargetJets(ratio, gradient, hessian)
