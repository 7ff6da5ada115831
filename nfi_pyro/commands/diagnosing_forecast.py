"""The parts of a diagnosis that judge forecasts of assets: recalibration, spread, Rank IC."""

import numpy as np
import xarray as xr

from nfi_pyro.commands.diagnosis_task import DiagnosisTask
from nfi_pyro.diagnostics.ar1_mean import mean_posterior, sum_series
from nfi_pyro.diagnostics.calibration import calibrate
from nfi_pyro.diagnostics.information_posterior import (
    PHI_RANGE,
    information_coefficient_power,
    posterior_information_coefficient,
)
from nfi_pyro.diagnostics.recalibration import fit_recalibration
from nfi_pyro.diagnostics.results import (
    InformationCoefficient,
    SpreadSkill,
)
from nfi_pyro.diagnostics.spread_skill import spread_against_skill
from nfi_pyro.rendering.diagnosis_contents import (
    InformationResults,
    Recalibrated,
)

_LEAST_TRAINING = 50  # dates, for a map of probabilities
_LEAST_DATES = 5
_POWER_DATES = (60, 120, 250, 500, 1000, 2000)
_SIMULATIONS = 400
_EFFECT = 0.005
_GRID = 241


def recalibrated(task: DiagnosisTask) -> Recalibrated | None:
    """Return calibration under a map learned on training dates; None with too few of them."""
    task.say("recalibration from the training dates")
    train = task.laws_of(task.fit.split.train)
    pit = train.cdf(task.outcomes_of(train))
    if int(pit.notnull().any("asset").sum()) < _LEAST_TRAINING:
        return None
    learned = fit_recalibration(pit)
    laws = task.laws_of(task.span)
    return Recalibrated(learned, calibrate(learned.apply(laws.cdf(task.outcomes_of(laws)))))


def spread_skill_of(task: DiagnosisTask) -> SpreadSkill:
    """Return forecast spread against realised error on the dates of the span."""
    laws = task.laws_of(task.span)
    return spread_against_skill(
        laws.standard_deviation, task.outcomes_of(laws) - laws.mean, seed=task.seed
    )


def information_of(task: DiagnosisTask, found: InformationCoefficient) -> InformationResults | None:
    """Return posterior, density and power of the mean Rank IC; None with too few dates."""
    series = found.rank_ic
    observed = series.dropna("date").values
    if len(observed) < _LEAST_DATES or np.ptp(observed) == 0.0:
        task.left_out["information"] = (
            f"Only {len(observed)} dates have a Rank IC that varies; {_LEAST_DATES} are needed."
        )
        return None
    task.say("posterior of the mean Rank IC, and its power")
    posterior = posterior_information_coefficient(series)
    law = mean_posterior(sum_series(series.values), posterior.prior_scale, PHI_RANGE)
    reach = 4.5 * posterior.standard_deviation
    edges = np.linspace(posterior.mean - reach, posterior.mean + reach, _GRID + 1)
    height = -np.diff(law.probability_above(edges)) / np.diff(edges)
    return InformationResults(
        posterior=posterior,
        density=xr.DataArray(height, {"mean": 0.5 * (edges[1:] + edges[:-1])}, ("mean",)),
        power=information_coefficient_power(
            _EFFECT,
            sd=float(observed.std(ddof=1)),
            phi=float(np.clip(posterior.phi_mean, *PHI_RANGE)),
            n_dates=sorted({*_POWER_DATES, len(observed)}),
            n_simulations=_SIMULATIONS,
            seed=task.seed,
        ),
    )
