"""Information geometry of a pricing law: how far apart exposures are, and along which paths."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nfi_pyro.geometry.ascent import maximise
    from nfi_pyro.geometry.average_metric import AverageManifold
    from nfi_pyro.geometry.average_results import EffectiveMovement
    from nfi_pyro.geometry.constrained import constrained_optimum
    from nfi_pyro.geometry.crowding import crowding_flow
    from nfi_pyro.geometry.crowding_results import CrowdingDensity, CrowdingFlow
    from nfi_pyro.geometry.curves import circle, polyline, rectangle, reversed_curve
    from nfi_pyro.geometry.density import crowding_density, log_density
    from nfi_pyro.geometry.forms import (
        carry_form,
        exterior_derivative,
        gradient_form,
        premium_form,
        sharpe_form,
    )
    from nfi_pyro.geometry.gauge import gat_alpha, gat_holonomy
    from nfi_pyro.geometry.incentive import crowding_incentive, volume_gradient
    from nfi_pyro.geometry.loop_results import (
        CurveIntegral,
        ExactnessCheck,
        GaugeAlpha,
        StokesCheck,
        TimeDecomposition,
    )
    from nfi_pyro.geometry.loops import exactness_check, line_integral, loop_integral
    from nfi_pyro.geometry.manifold import FisherManifold
    from nfi_pyro.geometry.multi_start import best_of_starts
    from nfi_pyro.geometry.objective import RiskAdjustedReturn, risk_adjusted_return
    from nfi_pyro.geometry.optim import (
        RiemannianAdaGrad,
        RiemannianAdam,
        RiemannianGD,
        RiemannianRMSprop,
    )
    from nfi_pyro.geometry.optim_results import Ascent, BestOfStarts, ConstrainedOptimum
    from nfi_pyro.geometry.rebalancing import no_trade_band, rebalance
    from nfi_pyro.geometry.rebalancing_results import BandDecision, Rebalancing, Trade
    from nfi_pyro.geometry.regime import calibrate_regime_alarm, regime_shifts, shift_statistic
    from nfi_pyro.geometry.regime_results import RegimeAlarm, RegimeShifts
    from nfi_pyro.geometry.results import (
        Bounds,
        Curvature,
        Exponential,
        Geodesic,
        Holonomy,
        Logarithm,
    )
    from nfi_pyro.geometry.risk_aversion import scheduled_risk_aversion, state_risk_aversion
    from nfi_pyro.geometry.state_results import StateDistances
    from nfi_pyro.geometry.states import (
        factor_states,
        pairwise_state_distances,
        state_distance_bounds,
        state_distances,
        state_path,
    )
    from nfi_pyro.geometry.stokes import stokes_check, surface_integral
    from nfi_pyro.geometry.time_change import dated_decomposition, time_decomposition
    from nfi_pyro.geometry.tracking import track
    from nfi_pyro.geometry.tracking_results import Tracking
    from nfi_pyro.geometry.trades import TradeRule, smallest_trade

_HOMES = {
    "Ascent": "optim_results",
    "AverageManifold": "average_metric",
    "BandDecision": "rebalancing_results",
    "BestOfStarts": "optim_results",
    "Bounds": "results",
    "ConstrainedOptimum": "optim_results",
    "CrowdingDensity": "crowding_results",
    "CrowdingFlow": "crowding_results",
    "Curvature": "results",
    "CurveIntegral": "loop_results",
    "EffectiveMovement": "average_results",
    "ExactnessCheck": "loop_results",
    "Exponential": "results",
    "FisherManifold": "manifold",
    "GaugeAlpha": "loop_results",
    "Geodesic": "results",
    "Holonomy": "results",
    "Logarithm": "results",
    "Rebalancing": "rebalancing_results",
    "RegimeAlarm": "regime_results",
    "RegimeShifts": "regime_results",
    "RiemannianAdaGrad": "optim",
    "RiemannianAdam": "optim",
    "RiemannianGD": "optim",
    "RiemannianRMSprop": "optim",
    "RiskAdjustedReturn": "objective",
    "StateDistances": "state_results",
    "StokesCheck": "loop_results",
    "TimeDecomposition": "loop_results",
    "Tracking": "tracking_results",
    "Trade": "rebalancing_results",
    "TradeRule": "trades",
    "best_of_starts": "multi_start",
    "calibrate_regime_alarm": "regime",
    "carry_form": "forms",
    "circle": "curves",
    "constrained_optimum": "constrained",
    "crowding_density": "density",
    "crowding_flow": "crowding",
    "crowding_incentive": "incentive",
    "dated_decomposition": "time_change",
    "exactness_check": "loops",
    "exterior_derivative": "forms",
    "factor_states": "states",
    "gat_alpha": "gauge",
    "gat_holonomy": "gauge",
    "gradient_form": "forms",
    "line_integral": "loops",
    "log_density": "density",
    "loop_integral": "loops",
    "maximise": "ascent",
    "no_trade_band": "rebalancing",
    "pairwise_state_distances": "states",
    "polyline": "curves",
    "premium_form": "forms",
    "rebalance": "rebalancing",
    "rectangle": "curves",
    "regime_shifts": "regime",
    "reversed_curve": "curves",
    "risk_adjusted_return": "objective",
    "scheduled_risk_aversion": "risk_aversion",
    "sharpe_form": "forms",
    "shift_statistic": "regime",
    "smallest_trade": "trades",
    "state_distance_bounds": "states",
    "state_distances": "states",
    "state_path": "states",
    "state_risk_aversion": "risk_aversion",
    "stokes_check": "stokes",
    "surface_integral": "stokes",
    "time_decomposition": "time_change",
    "track": "tracking",
    "volume_gradient": "incentive",
}

__all__ = [
    "Ascent",
    "AverageManifold",
    "BandDecision",
    "BestOfStarts",
    "Bounds",
    "ConstrainedOptimum",
    "CrowdingDensity",
    "CrowdingFlow",
    "Curvature",
    "CurveIntegral",
    "EffectiveMovement",
    "ExactnessCheck",
    "Exponential",
    "FisherManifold",
    "GaugeAlpha",
    "Geodesic",
    "Holonomy",
    "Logarithm",
    "Rebalancing",
    "RegimeAlarm",
    "RegimeShifts",
    "RiemannianAdaGrad",
    "RiemannianAdam",
    "RiemannianGD",
    "RiemannianRMSprop",
    "RiskAdjustedReturn",
    "StateDistances",
    "StokesCheck",
    "TimeDecomposition",
    "Tracking",
    "Trade",
    "TradeRule",
    "best_of_starts",
    "calibrate_regime_alarm",
    "carry_form",
    "circle",
    "constrained_optimum",
    "crowding_density",
    "crowding_flow",
    "crowding_incentive",
    "dated_decomposition",
    "exactness_check",
    "exterior_derivative",
    "factor_states",
    "gat_alpha",
    "gat_holonomy",
    "gradient_form",
    "line_integral",
    "log_density",
    "loop_integral",
    "maximise",
    "no_trade_band",
    "pairwise_state_distances",
    "polyline",
    "premium_form",
    "rebalance",
    "rectangle",
    "regime_shifts",
    "reversed_curve",
    "risk_adjusted_return",
    "scheduled_risk_aversion",
    "sharpe_form",
    "shift_statistic",
    "smallest_trade",
    "state_distance_bounds",
    "state_distances",
    "state_path",
    "state_risk_aversion",
    "stokes_check",
    "surface_integral",
    "time_decomposition",
    "track",
    "volume_gradient",
]


def __getattr__(name: str) -> Any:
    """Return a public name from the module that defines it, imported on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
