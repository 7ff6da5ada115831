"""Attribution: what drives expected returns, risks and portfolios, in parts that add up."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nfi_pyro.attribution.couplings.coupling import (
        ZeroHessianWarning,
        coupling_scores,
        law_coupling,
    )
    from nfi_pyro.attribution.couplings.coupling_mining import mine_couplings
    from nfi_pyro.attribution.couplings.coupling_products import product_factor
    from nfi_pyro.attribution.couplings.friedman import friedman_h_squared
    from nfi_pyro.attribution.networks.gradcam import factor_gradcam, lag_gradcam
    from nfi_pyro.attribution.networks.gradcam_sanity import gradcam_sanity
    from nfi_pyro.attribution.networks.integrated_gradients import (
        IntegrationPath,
        integrated_gradients,
    )
    from nfi_pyro.attribution.networks.relevance import layer_relevance
    from nfi_pyro.attribution.networks.relevance_rules import RelevanceRule
    from nfi_pyro.attribution.returns.brinson import add_trading, brinson
    from nfi_pyro.attribution.returns.brinson_draws import summarise_effects
    from nfi_pyro.attribution.returns.linking import link_effects, link_geometric
    from nfi_pyro.attribution.returns.realised import (
        ByPosterior,
        ByRegression,
        realised_attribution,
    )
    from nfi_pyro.attribution.risk.hedge import factor_hedge, hedge_with_assets
    from nfi_pyro.attribution.risk.risk_contributions import (
        linear_risk_contributions,
        risk_contributions,
    )
    from nfi_pyro.attribution.risk.sharpe_contributions import sharpe_contributions
    from nfi_pyro.attribution.risk.weight_attribution import weight_attribution
    from nfi_pyro.attribution.sensitivities.dated_laws import FixedFeatureLaw, dated_laws
    from nfi_pyro.attribution.sensitivities.portfolio_sensitivity import portfolio_sensitivity
    from nfi_pyro.attribution.sensitivities.sensitivity import sensitivity, target_derivatives
    from nfi_pyro.attribution.sensitivities.shifts import exposure_shift
    from nfi_pyro.attribution.sensitivities.targets import Target
    from nfi_pyro.attribution.sensitivities.taylor import taylor_attribution, taylor_book
    from nfi_pyro.attribution.styles.style_report import style_report

_HOMES = {
    "ByPosterior": "returns.realised",
    "ByRegression": "returns.realised",
    "FixedFeatureLaw": "sensitivities.dated_laws",
    "IntegrationPath": "networks.integrated_gradients",
    "RelevanceRule": "networks.relevance_rules",
    "Target": "sensitivities.targets",
    "ZeroHessianWarning": "couplings.coupling",
    "add_trading": "returns.brinson",
    "brinson": "returns.brinson",
    "coupling_scores": "couplings.coupling",
    "dated_laws": "sensitivities.dated_laws",
    "exposure_shift": "sensitivities.shifts",
    "factor_gradcam": "networks.gradcam",
    "factor_hedge": "risk.hedge",
    "friedman_h_squared": "couplings.friedman",
    "gradcam_sanity": "networks.gradcam_sanity",
    "hedge_with_assets": "risk.hedge",
    "integrated_gradients": "networks.integrated_gradients",
    "lag_gradcam": "networks.gradcam",
    "law_coupling": "couplings.coupling",
    "layer_relevance": "networks.relevance",
    "linear_risk_contributions": "risk.risk_contributions",
    "link_effects": "returns.linking",
    "link_geometric": "returns.linking",
    "mine_couplings": "couplings.coupling_mining",
    "portfolio_sensitivity": "sensitivities.portfolio_sensitivity",
    "product_factor": "couplings.coupling_products",
    "realised_attribution": "returns.realised",
    "risk_contributions": "risk.risk_contributions",
    "sensitivity": "sensitivities.sensitivity",
    "sharpe_contributions": "risk.sharpe_contributions",
    "style_report": "styles.style_report",
    "summarise_effects": "returns.brinson_draws",
    "target_derivatives": "sensitivities.sensitivity",
    "taylor_attribution": "sensitivities.taylor",
    "taylor_book": "sensitivities.taylor",
    "weight_attribution": "risk.weight_attribution",
}

__all__ = [
    "ByPosterior",
    "ByRegression",
    "FixedFeatureLaw",
    "IntegrationPath",
    "RelevanceRule",
    "Target",
    "ZeroHessianWarning",
    "add_trading",
    "brinson",
    "coupling_scores",
    "dated_laws",
    "exposure_shift",
    "factor_gradcam",
    "factor_hedge",
    "friedman_h_squared",
    "gradcam_sanity",
    "hedge_with_assets",
    "integrated_gradients",
    "lag_gradcam",
    "law_coupling",
    "layer_relevance",
    "linear_risk_contributions",
    "link_effects",
    "link_geometric",
    "mine_couplings",
    "portfolio_sensitivity",
    "product_factor",
    "realised_attribution",
    "risk_contributions",
    "sensitivity",
    "sharpe_contributions",
    "style_report",
    "summarise_effects",
    "target_derivatives",
    "taylor_attribution",
    "taylor_book",
    "weight_attribution",
]


def __getattr__(name: str) -> object:
    """Return a public name from the module that defines it, imported on first use."""
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return the public names."""
    return sorted(__all__)
