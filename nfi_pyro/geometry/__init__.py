"""Information geometry of a pricing law: how far apart exposures are, and along which paths."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nfi_pyro.geometry.average_metric import AverageManifold
    from nfi_pyro.geometry.crowding.crowding import crowding_flow
    from nfi_pyro.geometry.crowding.density import crowding_density, log_density
    from nfi_pyro.geometry.crowding.incentive import crowding_incentive, volume_gradient
    from nfi_pyro.geometry.loops.curves import circle, polyline, rectangle, reversed_curve
    from nfi_pyro.geometry.loops.forms import (
        carry_form,
        exterior_derivative,
        gradient_form,
        premium_form,
        sharpe_form,
    )
    from nfi_pyro.geometry.loops.gauge import gat_alpha, gat_holonomy
    from nfi_pyro.geometry.loops.loops import exactness_check, line_integral, loop_integral
    from nfi_pyro.geometry.loops.stokes import stokes_check, surface_integral
    from nfi_pyro.geometry.loops.time_change import dated_decomposition, time_decomposition
    from nfi_pyro.geometry.manifold import FisherManifold
    from nfi_pyro.geometry.optimisers.ascent import maximise
    from nfi_pyro.geometry.optimisers.constrained import constrained_optimum
    from nfi_pyro.geometry.optimisers.multi_start import best_of_starts
    from nfi_pyro.geometry.optimisers.objective import RiskAdjustedReturn, risk_adjusted_return
    from nfi_pyro.geometry.optimisers.optim import (
        RiemannianAdaGrad,
        RiemannianAdam,
        RiemannianGD,
        RiemannianRMSprop,
    )
    from nfi_pyro.geometry.optimisers.risk_aversion import (
        scheduled_risk_aversion,
        state_risk_aversion,
    )
    from nfi_pyro.geometry.results.average import EffectiveMovement
    from nfi_pyro.geometry.results.crowding import CrowdingDensity, CrowdingFlow
    from nfi_pyro.geometry.results.loops import (
        CurveIntegral,
        ExactnessCheck,
        GaugeAlpha,
        StokesCheck,
        TimeDecomposition,
    )
    from nfi_pyro.geometry.results.manifold import (
        Bounds,
        Curvature,
        Exponential,
        Geodesic,
        Holonomy,
        Logarithm,
    )
    from nfi_pyro.geometry.results.optimisers import Ascent, BestOfStarts, ConstrainedOptimum
    from nfi_pyro.geometry.results.rebalancing import BandDecision, Rebalancing, Trade
    from nfi_pyro.geometry.results.regime import RegimeAlarm, RegimeShifts
    from nfi_pyro.geometry.results.states import StateDistances
    from nfi_pyro.geometry.results.tracking import Tracking
    from nfi_pyro.geometry.states.states import (
        factor_states,
        pairwise_state_distances,
        state_distance_bounds,
        state_distances,
        state_path,
    )
    from nfi_pyro.geometry.tracking.rebalancing import no_trade_band, rebalance
    from nfi_pyro.geometry.tracking.regime import (
        calibrate_regime_alarm,
        regime_shifts,
        shift_statistic,
    )
    from nfi_pyro.geometry.tracking.tracking import track
    from nfi_pyro.geometry.tracking.trades import TradeRule, smallest_trade

_HOMES = {
    "Ascent": "results.optimisers",
    "AverageManifold": "average_metric",
    "BandDecision": "results.rebalancing",
    "BestOfStarts": "results.optimisers",
    "Bounds": "results.manifold",
    "ConstrainedOptimum": "results.optimisers",
    "CrowdingDensity": "results.crowding",
    "CrowdingFlow": "results.crowding",
    "Curvature": "results.manifold",
    "CurveIntegral": "results.loops",
    "EffectiveMovement": "results.average",
    "ExactnessCheck": "results.loops",
    "Exponential": "results.manifold",
    "FisherManifold": "manifold",
    "GaugeAlpha": "results.loops",
    "Geodesic": "results.manifold",
    "Holonomy": "results.manifold",
    "Logarithm": "results.manifold",
    "Rebalancing": "results.rebalancing",
    "RegimeAlarm": "results.regime",
    "RegimeShifts": "results.regime",
    "RiemannianAdaGrad": "optimisers.optim",
    "RiemannianAdam": "optimisers.optim",
    "RiemannianGD": "optimisers.optim",
    "RiemannianRMSprop": "optimisers.optim",
    "RiskAdjustedReturn": "optimisers.objective",
    "StateDistances": "results.states",
    "StokesCheck": "results.loops",
    "TimeDecomposition": "results.loops",
    "Tracking": "results.tracking",
    "Trade": "results.rebalancing",
    "TradeRule": "tracking.trades",
    "best_of_starts": "optimisers.multi_start",
    "calibrate_regime_alarm": "tracking.regime",
    "carry_form": "loops.forms",
    "circle": "loops.curves",
    "constrained_optimum": "optimisers.constrained",
    "crowding_density": "crowding.density",
    "crowding_flow": "crowding.crowding",
    "crowding_incentive": "crowding.incentive",
    "dated_decomposition": "loops.time_change",
    "exactness_check": "loops.loops",
    "exterior_derivative": "loops.forms",
    "factor_states": "states.states",
    "gat_alpha": "loops.gauge",
    "gat_holonomy": "loops.gauge",
    "gradient_form": "loops.forms",
    "line_integral": "loops.loops",
    "log_density": "crowding.density",
    "loop_integral": "loops.loops",
    "maximise": "optimisers.ascent",
    "no_trade_band": "tracking.rebalancing",
    "pairwise_state_distances": "states.states",
    "polyline": "loops.curves",
    "premium_form": "loops.forms",
    "rebalance": "tracking.rebalancing",
    "rectangle": "loops.curves",
    "regime_shifts": "tracking.regime",
    "reversed_curve": "loops.curves",
    "risk_adjusted_return": "optimisers.objective",
    "scheduled_risk_aversion": "optimisers.risk_aversion",
    "sharpe_form": "loops.forms",
    "shift_statistic": "tracking.regime",
    "smallest_trade": "tracking.trades",
    "state_distance_bounds": "states.states",
    "state_distances": "states.states",
    "state_path": "states.states",
    "state_risk_aversion": "optimisers.risk_aversion",
    "stokes_check": "loops.stokes",
    "surface_integral": "loops.stokes",
    "time_decomposition": "loops.time_change",
    "track": "tracking.tracking",
    "volume_gradient": "crowding.incentive",
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
