"""What a diagnosis page shows: results only, no model and no drawing."""

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd
import xarray as xr

from nfi_pyro.diagnostics.results import (
    Calibration,
    Collapse,
    Convergence,
    ImportanceQuality,
    InformationCoefficient,
    InformationPosterior,
    InformationPower,
    PortfolioCoverage,
    PredictiveChecks,
    Recalibration,
    RestartComparison,
    ScoreTable,
    SimulationCalibration,
    SpreadSkill,
    ValueAtRiskBacktest,
)

PARTS = (
    "training",
    "collapse",
    "importance",
    "simulation",
    "calibration",
    "portfolios",
    "spread-skill",
    "value-at-risk",
    "predictive",
    "information",
    "scores",
    "heads",
    "restarts",
)
"""Anchors of the parts that are judged, in the order in which a fit is read."""


@dataclass(frozen=True)
class Recalibrated:
    """Coverage on the evaluation dates under a map of probabilities learned before them.

    Attributes
    ----------
    recalibration : Recalibration
        Learned on training dates alone.
    calibration : Calibration
        Of the PIT under it, on the evaluation dates.
    """

    recalibration: Recalibration
    calibration: Calibration


@dataclass(frozen=True)
class PortfolioResults:
    """How the joint law did for portfolios.

    Attributes
    ----------
    coverage : PortfolioCoverage
        Of the equal-weight book, first, and of random long-only books.
    rescaled : PortfolioCoverage or None
        The same after each portfolio's normal scores were divided by the factor that gives its
        training scores unit standard deviation; None where there are too few.
    scale_factors : DataArray, shape (portfolio,), or None
        That factor; above 1 the law was too narrow on training dates.
    n_training_dates : int
        Dates that it was learned from.
    series : Dataset or None
        Of the equal-weight book: `realised` (date,) and `value_at_risk` (level, date), decimal;
        losses positive in the latter.
    backtests : tuple of ValueAtRiskBacktest
        One per level of `series`.
    about : str
        How the books are made, in one or two sentences.
    """

    coverage: PortfolioCoverage
    rescaled: PortfolioCoverage | None
    scale_factors: xr.DataArray | None
    n_training_dates: int
    series: xr.Dataset | None
    backtests: tuple[ValueAtRiskBacktest, ...]
    about: str


@dataclass(frozen=True)
class InformationResults:
    """What is known of the mean Rank IC.

    Attributes
    ----------
    posterior : InformationPosterior
    density : DataArray, shape (mean,)
        Posterior density of the mean; coordinate `mean` is a Rank IC.
    power : InformationPower
        For the standard deviation and autocorrelation seen on these dates.
    """

    posterior: InformationPosterior
    density: xr.DataArray
    power: InformationPower


@dataclass(frozen=True)
class HeadResults:
    """What random last layers imply, as `nfi_pyro.posterior.head_prior_predictive` gives it.

    Attributes
    ----------
    prior, posterior : Dataset over (draw,)
        `daily_scale`, `book_scale`, `mean_share`, `factor_share`, `excess_kurtosis`.
    """

    prior: xr.Dataset
    posterior: xr.Dataset


@dataclass(frozen=True)
class DiagnosisContents:
    """Everything that the diagnosis page of one run prints.

    Attributes
    ----------
    title : str
    provenance : mapping of section to mapping of label to text
        What was fitted on what.
    settings : mapping of label to text
        Draws, seeds and dates of this page.
    label : str
        What the return is and when it is earned.
    unit : str
        ``%`` for returns, which are decimal in the results, else the label's unit.
    evaluation_span : str
        Which dates were evaluated, and whether training saw them.
    thinning : str
        On which of them the expensive parts were computed.
    visited : str
        The same in a few words, for the sections of those parts.
    left_out : mapping of part to text
        A sentence why for every one of `PARTS` that is None or empty below.
    history : Dataset
        As in `nfi_pyro.rendering.contents.ReportContents`, and `heads_kl` (step,) where last
        layers are random.
    convergence : Convergence or None
    collapse : Collapse or None
    importance : tuple of ImportanceQuality
        The posterior's, and the encoder's where there is one.
    simulations : tuple of SimulationCalibration
        The same.
    calibration : Calibration
    recalibrated : Recalibrated or None
        None where there are too few training dates.
    portfolios : PortfolioResults or None
    spread_skill : SpreadSkill
    predictive : PredictiveChecks or None
    information_coefficient : InformationCoefficient
    information : InformationResults or None
    scores : ScoreTable
    heads : HeadResults or None
    restarts : RestartComparison or None
    arviz : DataFrame indexed by function
        Columns meaning, why, instead.
    """

    title: str
    provenance: Mapping[str, Mapping[str, str]]
    settings: Mapping[str, str]
    label: str
    unit: str
    evaluation_span: str
    thinning: str
    visited: str
    left_out: Mapping[str, str]
    history: xr.Dataset
    convergence: Convergence | None
    collapse: Collapse | None
    importance: tuple[ImportanceQuality, ...]
    simulations: tuple[SimulationCalibration, ...]
    calibration: Calibration
    recalibrated: Recalibrated | None
    portfolios: PortfolioResults | None
    spread_skill: SpreadSkill
    predictive: PredictiveChecks | None
    information_coefficient: InformationCoefficient
    information: InformationResults | None
    scores: ScoreTable
    heads: HeadResults | None
    restarts: RestartComparison | None
    arviz: pd.DataFrame
