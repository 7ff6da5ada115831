"""Small fits of every model on one simulated panel, made once for all tests of a process."""

from functools import cache
from typing import Any

from nfi_pyro.data.panel import Panel
from nfi_pyro.data.simulate import SimulationSpec, simulate_panel
from nfi_pyro.distributions.heads import HeadSpec
from nfi_pyro.factor_vae import FactorVAE, FactorVAESpec
from nfi_pyro.linear_factor import LinearFactor, LinearFactorSpec
from nfi_pyro.mixture_pricing import MixturePricing, MixturePricingSpec
from nfi_pyro.neural_factor import NeuralFactor, NeuralFactorSpec
from nfi_pyro.nfi import NFI, NFISpec
from nfi_pyro.svi import SVIConfig, SVIFit, fit_svi

FEATURES, FACTORS = 5, 3
SMALL: dict[str, Any] = {
    "n_features": FEATURES, "lags": 2, "projection_size": 4, "hidden_size": 4,
    "n_factors": FACTORS, "n_portfolios": 5, "prior_hidden_size": 4,
}  # fmt: skip
RANDOM = HeadSpec(kind="low_rank", rank=3)
RECIPES: dict[str, Any] = {
    "factor_vae": lambda: FactorVAE(FactorVAESpec(**SMALL, alpha_hidden_size=4)),
    "linear_factor": lambda: LinearFactor(LinearFactorSpec(n_exposures=FEATURES)),
    "mixture_pricing": lambda: MixturePricing(
        MixturePricingSpec(n_exposures=FEATURES, hidden_size=4)
    ),
    "neural_factor": lambda: NeuralFactor(NeuralFactorSpec(n_exposures=FEATURES, hidden_size=4)),
    "nfi": lambda: NFI(NFISpec(**SMALL, pricing_size=4)),
    "nfi, random heads": lambda: NFI(NFISpec(**SMALL, pricing_size=4, heads=RANDOM)),
    "mixture_pricing, random heads": lambda: MixturePricing(
        MixturePricingSpec(n_exposures=FEATURES, hidden_size=4, heads=RANDOM)
    ),
}
PRICING = ("linear_factor", "mixture_pricing", "neural_factor", "nfi")
MODELS = ("factor_vae", *PRICING)


@cache
def small_panel() -> Panel:
    """Return 61 dates of 11 assets whose features are given exposures too."""
    spec = SimulationSpec(n_dates=61, n_assets=11, n_features=FEATURES, n_factors=FACTORS,
                          missing_share=0.05)  # fmt: skip
    return simulate_panel(spec, seed=23)[0]


@cache
def small_fit(name: str, seed: int = 3) -> SVIFit:
    """Return a fit of two epochs on `small_panel`."""
    config = SVIConfig(n_epochs=2, block_size=7, learning_rate=1e-2, progress=False, device="cpu")
    return fit_svi(RECIPES[name](), small_panel(), config=config, seed=seed)
