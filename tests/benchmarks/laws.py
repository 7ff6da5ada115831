"""A law of realistic size for benchmarks: what it costs does not depend on what it has learned."""

import numpy as np
import torch

from nfi_pyro.distributions.pricing import PricingFunction
from nfi_pyro.nets.pricing import PricingNetwork
from nfi_pyro.posterior import PricingLaw

N_ASSETS, N_FACTORS, N_COMPONENTS = 3000, 16, 4


def make_law() -> PricingLaw:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = PricingNetwork(
            N_FACTORS,
            hidden_size=32,
            n_layers=2,
            n_components=N_COMPONENTS,
            activation="tanh",
            scale_floor=0.05,
            linear=False,
        ).double()
        for parameter in network.parameters():
            parameter.requires_grad_(False)
        beta = torch.randn(N_ASSETS, N_FACTORS, dtype=torch.float64)
        loc = 0.1 * torch.randn(N_FACTORS, dtype=torch.float64)
    scale = torch.full((N_FACTORS,), 0.2, dtype=torch.float64)
    function = PricingFunction(network, network.alpha.jet, loc, scale, "exposures", network.jets)
    names = tuple(f"z{k}" for k in range(N_FACTORS))
    assets = np.array([f"A{place:04d}" for place in range(N_ASSETS)])
    return PricingLaw(function, 0.02, beta, assets, names, np.datetime64("2024-01-02", "ns"))
