"""What an investor maximises over exposures: expected return less a price for its variance."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
import xarray as xr
from torch import Tensor

from nfi_pyro.dims import DATE
from nfi_pyro.distributions.law_jets import Pricing
from nfi_pyro.distributions.mixture import MixtureOfNormals
from nfi_pyro.errors import SpecError


@dataclass(frozen=True)
class RiskAdjustedReturn:
    r"""``f(beta) = E[r | beta] - lambda Var[r | beta]``; called with exposures (..., factor).

    Decimal return of the law's horizon, shape (...). Autograd and `torch.func` differentiate it.
    Build it with `risk_adjusted_return`, which checks.

    Attributes
    ----------
    pricing : callable
        Exposures (..., factor) to logits, loc and log scale, each (..., component).
    risk_aversion : Tensor, shape () or (...)
        lambda, >= 0, per decimal return; one, or one for each row of exposures.
    """

    pricing: Pricing
    risk_aversion: Tensor

    def __call__(self, beta: Tensor) -> Tensor:
        """Return the risk-adjusted return at exposures, (...)."""
        mean, variance = moments(self.pricing, beta)
        return mean - self.risk_aversion * variance


def moments(pricing: Pricing, beta: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and variance of the return at exposures (..., factor), each (...)."""
    logits, loc, log_scale = pricing(beta)
    law = MixtureOfNormals(logits, loc, log_scale.exp(), validate_args=False)
    return law.mean, law.variance


def risk_adjusted_return(
    pricing: Pricing,
    risk_aversion: float | Tensor | xr.DataArray,
    *,
    date: np.datetime64 | str | None = None,
) -> RiskAdjustedReturn:
    """Return ``E - lambda Var`` of a pricing law as a function of exposures.

    Parameters
    ----------
    pricing : callable
        A `PricingLaw`, or any function that `FisherManifold` takes. In decimal return, or lambda
        is per its unit.
    risk_aversion : float, Tensor (...), or DataArray (date,)
        Fixed; one for each row of exposures; or one by date, as from `scheduled_risk_aversion`
        and `state_risk_aversion`, of which the law's date counts.
    date : datetime64 or str, optional
        Of the law; by default ``pricing.date``.

    Raises
    ------
    SpecError
        If risk aversion is not finite and >= 0, or its DataArray has other dimensions or lacks the
        date.
    """
    if isinstance(risk_aversion, xr.DataArray):
        risk_aversion = _on_date(
            risk_aversion, getattr(pricing, "date", None) if date is None else date
        )
    value = torch.as_tensor(risk_aversion, dtype=torch.float64)
    fine = torch.isfinite(value) & (value >= 0.0)
    if not bool(fine.all()):
        raise SpecError(
            "risk_aversion must be finite and >= 0; got "
            f"{float(value[~fine].flatten()[0])} at risk_adjusted_return. Pass 0 for the expected "
            "return alone; a rule by date is NaN before its window is full."
        )
    return RiskAdjustedReturn(pricing, value)


def _on_date(rule: xr.DataArray, date: np.datetime64 | str | None) -> float:
    """Return the risk aversion of one date."""
    if rule.dims != (DATE,):
        raise SpecError(
            f"risk_aversion must have the dimension date alone; got {rule.dims} at "
            "risk_adjusted_return. Choose a chain and draw, or average over them."
        )
    dates = rule.indexes[DATE]
    if date is None or pd.Timestamp(date) not in dates:
        raise SpecError(
            f"risk_aversion must hold the law's date; got {date} with {len(dates)} dates from "
            f"{dates[0]} to {dates[-1]} at risk_adjusted_return. Give `date`, or more dates."
        )
    return float(rule.sel({DATE: pd.Timestamp(date)}))
