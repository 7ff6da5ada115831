"""What a risk report shows: results only, no model and no drawing."""

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd
import xarray as xr

from nfi_pyro.diagnostics.results import Calibration, InformationCoefficient, ScoreTable
from nfi_pyro.portfolio.results import PortfolioRisk
from nfi_pyro.rendering.attribution_contents import AttributionContents
from nfi_pyro.rendering.geometry_contents import StateMovement


@dataclass(frozen=True)
class ReportContents:
    """Everything that the risk report of one run prints.

    Attributes
    ----------
    title : str
        Heading of the page.
    provenance : mapping of section to mapping of label to text
        What was fitted on what: data, splits, label timing, model, training, versions.
    ledger : DataFrame with columns rule, count, action, places
        What was found in the prices and what was done about it.
    coverage : Dataset over (date,)
        `listed`, `tradable`, `entered` (finite at all lags): number of assets.
    history : Dataset
        Over (step,): `elbo` (nats per observed cell), `gradient_norm`, `learning_rate`;
        over (step, factor): `kl` (nats per date; no factor where nothing is latent, one where
        the divergence of all factors is one number); over (epoch,): `validation_log_score`
        (nats per cell, returns in training-sd units), `validation_rank_ic`, `last_step`;
        attr `best_epoch`, a value of `epoch`, which counts from 1 (0: no epoch ended), and attr
        `objective`: only with ``elbo`` is `elbo` a bound.
    evaluation_span : str
        Which dates the next three describe, and whether they were seen in training.
    information_coefficient, calibration, scores
        See `nfi_pyro.diagnostics.results`.
    factors : Dataset over (date, factor), or None
        `prior_loc`, `prior_scale`, `posterior_loc`, `posterior_scale`: decimal return units
        per unit exposure. None for a model without shared factors.
    exposures : DataArray, shape (asset, factor)
        Beta on the forecast date, dimensionless: loadings on the factors, or without factors the
        exposures that price the assets.
    exposures_are_given : bool
        Whether the exposures are data, so that each has a name and a sign of its own.
    copula_loading : DataArray, shape (asset, column), or None
        On the forecast date, correlations of each asset's normal score with the shared normals of
        the copula; None where assets share factors.
    pricing : Dataset or None
        Of the forecast date, as `nfi_pyro.posterior.exposure_pricing.PricingLaw.evaluate` gives
        it: `jacobian`, `beta` (asset, factor), `hessian` (asset, factor, factor_other),
        `price_of_risk` (factor,), `mean` (asset,). None for a model that prices hidden features.
    risks : DataFrame indexed by asset
        Columns mean, standard_deviation, specific_share (of variance, in [0, 1]; to first order
        under a copula),
        value_at_risk_95, value_at_risk_99, expected_shortfall_95, expected_shortfall_99;
        every forecast asset on the forecast date, largest standard deviation first.
    portfolio : PortfolioRisk
        Risk of the given weights, or of the equal-weight book.
    portfolio_name : str
        For example ``equal weight`` or the name of the weights file.
    label : str
        One line that says what the return is and when it is earned.
    movement : StateMovement or None
        How far the factors' law moved through the evaluation span.
    attribution : AttributionContents or None
        What drives the portfolio on the forecast date.
    """

    title: str
    provenance: Mapping[str, Mapping[str, str]]
    ledger: pd.DataFrame
    coverage: xr.Dataset
    history: xr.Dataset
    evaluation_span: str
    information_coefficient: InformationCoefficient
    calibration: Calibration
    scores: ScoreTable
    factors: xr.Dataset | None
    exposures: xr.DataArray
    exposures_are_given: bool
    copula_loading: xr.DataArray | None
    pricing: xr.Dataset | None
    risks: pd.DataFrame
    portfolio: PortfolioRisk
    portfolio_name: str
    label: str
    movement: StateMovement | None = None
    attribution: AttributionContents | None = None
