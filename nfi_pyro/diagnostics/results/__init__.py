"""Results of the diagnostics: frozen tables, numbers and verdicts, no drawing and no fitting."""

from nfi_pyro.diagnostics.results.collapse import Collapse
from nfi_pyro.diagnostics.results.convergence import Convergence, Trend
from nfi_pyro.diagnostics.results.forecasts import Calibration, InformationCoefficient, ScoreTable
from nfi_pyro.diagnostics.results.importance import ImportanceQuality
from nfi_pyro.diagnostics.results.information import (
    DatesNeeded,
    InformationPosterior,
    InformationPower,
)
from nfi_pyro.diagnostics.results.leave_one_out import LeaveOneAssetOut
from nfi_pyro.diagnostics.results.portfolio_calibration import PortfolioCoverage
from nfi_pyro.diagnostics.results.predictive_checks import PredictiveChecks
from nfi_pyro.diagnostics.results.recalibration import Recalibration, ScaleRecalibration
from nfi_pyro.diagnostics.results.restarts import RestartComparison
from nfi_pyro.diagnostics.results.simulation import SimulationCalibration
from nfi_pyro.diagnostics.results.spread_skill import SpreadSkill
from nfi_pyro.diagnostics.results.var_backtest import (
    LikelihoodRatio,
    ShortfallTest,
    ValueAtRiskBacktest,
)
from nfi_pyro.diagnostics.results.verdict import Grade, Verdict

__all__ = [
    "Calibration",
    "Collapse",
    "Convergence",
    "DatesNeeded",
    "Grade",
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
    "Verdict",
]
