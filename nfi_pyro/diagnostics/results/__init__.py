"""Results of the diagnostics: frozen tables, numbers and verdicts, no drawing and no fitting."""

from nfi_pyro.diagnostics.results.forecasts import Calibration, InformationCoefficient, ScoreTable
from nfi_pyro.diagnostics.results.verdict import Grade, Verdict

__all__ = ["Calibration", "Grade", "InformationCoefficient", "ScoreTable", "Verdict"]
