"""Does a forecast say the truth? Scores, rank correlation and calibration of what was forecast."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nfi_pyro.diagnostics.calibration import calibrate
    from nfi_pyro.diagnostics.gaussian_baselines import ewma_gaussian, unconditional_gaussian
    from nfi_pyro.diagnostics.results import Calibration, InformationCoefficient, ScoreTable
    from nfi_pyro.diagnostics.scores import (
        compare_forecasts,
        gaussian_crps,
        gaussian_log_score,
        hac_standard_error,
        information_coefficient,
        newey_west_lags,
        paired_differences,
    )

_HOMES = {
    "Calibration": "results",
    "InformationCoefficient": "results",
    "ScoreTable": "results",
    "calibrate": "calibration",
    "compare_forecasts": "scores",
    "ewma_gaussian": "gaussian_baselines",
    "gaussian_crps": "scores",
    "gaussian_log_score": "scores",
    "hac_standard_error": "scores",
    "information_coefficient": "scores",
    "newey_west_lags": "scores",
    "paired_differences": "scores",
    "unconditional_gaussian": "gaussian_baselines",
}

__all__ = [
    "Calibration",
    "InformationCoefficient",
    "ScoreTable",
    "calibrate",
    "compare_forecasts",
    "ewma_gaussian",
    "gaussian_crps",
    "gaussian_log_score",
    "hac_standard_error",
    "information_coefficient",
    "newey_west_lags",
    "paired_differences",
    "unconditional_gaussian",
]


def __getattr__(name: str) -> Any:
    """Return a public name from the module that defines it, imported on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
