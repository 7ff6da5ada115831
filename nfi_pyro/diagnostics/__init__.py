"""Does a forecast say the truth? Scores, rank correlation and calibration of what was forecast."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nfi_pyro.diagnostics.arviz_functions import ARVIZ_FUNCTIONS, arviz_guide
    from nfi_pyro.diagnostics.arviz_views import leave_one_asset_out, observed_view
    from nfi_pyro.diagnostics.calibration import calibrate
    from nfi_pyro.diagnostics.collapse import judge_collapse
    from nfi_pyro.diagnostics.convergence import judge_convergence
    from nfi_pyro.diagnostics.gaussian_baselines import ewma_gaussian, unconditional_gaussian
    from nfi_pyro.diagnostics.importance import judge_importance
    from nfi_pyro.diagnostics.information_posterior import (
        information_coefficient_power,
        posterior_information_coefficient,
    )
    from nfi_pyro.diagnostics.portfolio_calibration import portfolio_coverage
    from nfi_pyro.diagnostics.predictive_checks import check_predictions, judge_replicates
    from nfi_pyro.diagnostics.ranks import judge_ranks
    from nfi_pyro.diagnostics.recalibration import fit_recalibration, fit_scale_recalibration
    from nfi_pyro.diagnostics.restarts import compare_restarts
    from nfi_pyro.diagnostics.results import (
        Calibration,
        Collapse,
        Convergence,
        DatesNeeded,
        ImportanceQuality,
        InformationCoefficient,
        InformationPosterior,
        InformationPower,
        LeaveOneAssetOut,
        LikelihoodRatio,
        PortfolioCoverage,
        PredictiveChecks,
        Recalibration,
        RestartComparison,
        ScaleRecalibration,
        ScoreTable,
        ShortfallTest,
        SimulationCalibration,
        SpreadSkill,
        Trend,
        ValueAtRiskBacktest,
    )
    from nfi_pyro.diagnostics.scores import (
        compare_forecasts,
        gaussian_crps,
        gaussian_log_score,
        hac_standard_error,
        information_coefficient,
        newey_west_lags,
        paired_differences,
    )
    from nfi_pyro.diagnostics.simulation import simulation_based_calibration
    from nfi_pyro.diagnostics.spread_skill import spread_against_skill
    from nfi_pyro.diagnostics.var_backtest import backtest_value_at_risk, coverage_power

_HOMES = {
    "ARVIZ_FUNCTIONS": "arviz_functions",
    "Calibration": "results",
    "Collapse": "results",
    "Convergence": "results",
    "DatesNeeded": "results",
    "ImportanceQuality": "results",
    "InformationCoefficient": "results",
    "InformationPosterior": "results",
    "InformationPower": "results",
    "LeaveOneAssetOut": "results",
    "LikelihoodRatio": "results",
    "PortfolioCoverage": "results",
    "PredictiveChecks": "results",
    "Recalibration": "results",
    "RestartComparison": "results",
    "ScaleRecalibration": "results",
    "ScoreTable": "results",
    "ShortfallTest": "results",
    "SimulationCalibration": "results",
    "SpreadSkill": "results",
    "Trend": "results",
    "ValueAtRiskBacktest": "results",
    "arviz_guide": "arviz_functions",
    "backtest_value_at_risk": "var_backtest",
    "calibrate": "calibration",
    "check_predictions": "predictive_checks",
    "compare_forecasts": "scores",
    "compare_restarts": "restarts",
    "coverage_power": "var_backtest",
    "ewma_gaussian": "gaussian_baselines",
    "fit_recalibration": "recalibration",
    "fit_scale_recalibration": "recalibration",
    "gaussian_crps": "scores",
    "gaussian_log_score": "scores",
    "hac_standard_error": "scores",
    "information_coefficient": "scores",
    "information_coefficient_power": "information_posterior",
    "judge_collapse": "collapse",
    "judge_convergence": "convergence",
    "judge_importance": "importance",
    "judge_ranks": "ranks",
    "judge_replicates": "predictive_checks",
    "leave_one_asset_out": "arviz_views",
    "newey_west_lags": "scores",
    "observed_view": "arviz_views",
    "paired_differences": "scores",
    "portfolio_coverage": "portfolio_calibration",
    "posterior_information_coefficient": "information_posterior",
    "simulation_based_calibration": "simulation",
    "spread_against_skill": "spread_skill",
    "unconditional_gaussian": "gaussian_baselines",
}

__all__ = [
    "ARVIZ_FUNCTIONS",
    "Calibration",
    "Collapse",
    "Convergence",
    "DatesNeeded",
    "ImportanceQuality",
    "InformationCoefficient",
    "InformationPosterior",
    "InformationPower",
    "LeaveOneAssetOut",
    "LikelihoodRatio",
    "PortfolioCoverage",
    "PredictiveChecks",
    "Recalibration",
    "RestartComparison",
    "ScaleRecalibration",
    "ScoreTable",
    "ShortfallTest",
    "SimulationCalibration",
    "SpreadSkill",
    "Trend",
    "ValueAtRiskBacktest",
    "arviz_guide",
    "backtest_value_at_risk",
    "calibrate",
    "check_predictions",
    "compare_forecasts",
    "compare_restarts",
    "coverage_power",
    "ewma_gaussian",
    "fit_recalibration",
    "fit_scale_recalibration",
    "gaussian_crps",
    "gaussian_log_score",
    "hac_standard_error",
    "information_coefficient",
    "information_coefficient_power",
    "judge_collapse",
    "judge_convergence",
    "judge_importance",
    "judge_ranks",
    "judge_replicates",
    "leave_one_asset_out",
    "newey_west_lags",
    "observed_view",
    "paired_differences",
    "portfolio_coverage",
    "posterior_information_coefficient",
    "simulation_based_calibration",
    "spread_against_skill",
    "unconditional_gaussian",
]


def __getattr__(name: str) -> Any:
    """Return a public name from the module that defines it, imported on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
