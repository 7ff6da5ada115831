"""What an attribution page shows: results only, no model and no drawing."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import xarray as xr

from nfi_pyro.attribution.results.brinson import BrinsonAttribution, LinkedEffects
from nfi_pyro.attribution.results.contributions import RiskContributions, SharpeContributions
from nfi_pyro.attribution.results.coupling import MinedCouplings
from nfi_pyro.attribution.results.explanations import (
    FactorHeatMap,
    FeatureAttribution,
    FeatureRelevance,
    HeatMapSanity,
)
from nfi_pyro.attribution.results.hedge import FactorHedge
from nfi_pyro.attribution.results.realised import RealisedAttribution
from nfi_pyro.attribution.results.styles import StyleReport


@dataclass(frozen=True)
class AttributionContents:
    """Everything that the attribution page of one run and one book prints.

    A part that could not be had is None, and `left_out` says why under the part's name.

    Attributes
    ----------
    label : str
        What the return is and when it is earned.
    book : str
        Its name.
    interval_about : str
        What intervals are made from, or why there are none.
    left_out : mapping of part to text
        Parts: prices, risk_slopes, taylor, risk, sharpe, heat_mean, heat_risk, sanity, features,
        relevance, couplings, realised, brinson, hedge, styles.
    title, provenance, settings, evaluation_span
        Of a page; a section of another page needs none.
    benchmark : str
        Name; "" without one.
    prices, risk_slopes : Dataset over (date, factor, factor_other), or None
        Of the book's expected return, and of its standard deviation, as `portfolio_sensitivity`
        returns them: `value` (date), `exposure`, `gradient`, `contribution` (date, factor),
        `hessian`, `uncovered` (date). With intervals also `value_lower`, `value_upper`, and where
        factors are comparable `gradient_lower`, `gradient_upper`. Attr `shift`.
    taylor : Dataset over (factor,), or None
        Of the book's expected return on the last date: `base_value`, `value`, `remainder` (no
        dimension), `linear`, `quadratic`, `cross`, `base`, as `taylor_book` returns them; attr
        `date`, and attr `base` says what is expanded around. With intervals also `value_lower`,
        `value_upper`, and where factors are comparable `part_lower`, `part_upper` of a factor's
        three parts together.
    risk, sharpe : RiskContributions, SharpeContributions, or None
        On the last date; standard deviation, value at risk and expected shortfall.
    risk_bounds : DataArray over (bound, measure), or None
        Interval of the measures of `risk`.
    heat_mean, heat_risk : FactorHeatMap or None
    sanity : HeatMapSanity or None
    features : FeatureAttribution or None
    relevance : FeatureRelevance or None
    couplings : MinedCouplings or None
    realised : RealisedAttribution or None
    brinson, linked : BrinsonAttribution, LinkedEffects, or None
        Against the benchmark by group, and linked over the span.
    unobserved : pair of float, or None
        Mean share of the book's and of the benchmark's weight without an observed return, which
        the others took over in `brinson`.
    hedge : FactorHedge or None
    styles : StyleReport or None
    """

    label: str
    book: str
    interval_about: str
    left_out: Mapping[str, str]
    title: str = ""
    provenance: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    evaluation_span: str = ""
    benchmark: str = ""
    prices: xr.Dataset | None = None
    risk_slopes: xr.Dataset | None = None
    taylor: xr.Dataset | None = None
    risk: RiskContributions | None = None
    risk_bounds: xr.DataArray | None = None
    sharpe: SharpeContributions | None = None
    heat_mean: FactorHeatMap | None = None
    heat_risk: FactorHeatMap | None = None
    sanity: HeatMapSanity | None = None
    features: FeatureAttribution | None = None
    relevance: FeatureRelevance | None = None
    couplings: MinedCouplings | None = None
    realised: RealisedAttribution | None = None
    brinson: BrinsonAttribution | None = None
    linked: LinkedEffects | None = None
    unobserved: tuple[float, float] | None = None
    hedge: FactorHedge | None = None
    styles: StyleReport | None = None
