"""What one pricing law costs: all of a date in one pass, against plain autograd asset by asset.

Run ``pytest tests/benchmarks/bench_pricing_law.py -q -s -o python_files='bench_*.py'
-o pythonpath=.``. One thread (two wait for each other under any other load); 3,000 assets,
16 factors, 4 components.
"""

import time

import numpy as np
import torch

from nfi_pyro.posterior import PricingLaw
from tests.benchmarks.laws import N_ASSETS, N_COMPONENTS, N_FACTORS, make_law

N_BY_AUTOGRAD = 60  # assets that plain autograd is timed on; its cost is one asset's times N
MOST_SECONDS = 0.5
LEAST_RATIO = 20.0


def by_autograd(law: PricingLaw, levels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return gradient and Hessian of the mean of the first assets, one after the other."""

    def mean(beta: torch.Tensor) -> torch.Tensor:
        return law.marginal(beta).mean

    gradients, hessians = [], []
    for beta in law.beta[:N_BY_AUTOGRAD]:
        one = law.marginal(beta)
        one.variance  # noqa: B018  (the same outputs as in one pass)
        one.icdf(levels)
        gradients.append(torch.autograd.functional.jacobian(mean, beta))
        hessians.append(torch.autograd.functional.hessian(mean, beta))
    return torch.stack(gradients), torch.stack(hessians)


def test_the_whole_law_of_a_date() -> None:
    law = make_law()
    levels = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
    law.evaluate(levels)  # warm
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        found = law.evaluate(levels)
        seconds.append(time.perf_counter() - began)
    whole = float(np.median(seconds))
    began = time.perf_counter()
    gradient, hessian = by_autograd(law, torch.tensor(levels, dtype=torch.float64))
    alone = (time.perf_counter() - began) / N_BY_AUTOGRAD * N_ASSETS
    torch.testing.assert_close(
        gradient, torch.from_numpy(found["jacobian"].values[:N_BY_AUTOGRAD]), rtol=1e-9, atol=1e-12
    )
    torch.testing.assert_close(
        hessian, torch.from_numpy(found["hessian"].values[:N_BY_AUTOGRAD]), rtol=1e-9, atol=1e-12
    )
    print(
        f"\nlaw of {N_ASSETS} assets, {N_FACTORS} factors, {N_COMPONENTS} components: moments, "
        f"9 quantiles, g, H in {whole:.3f} s (target <= {MOST_SECONDS}); plain autograd by asset "
        f"/ one pass = {alone / whole:.0f} (target >= {LEAST_RATIO:.0f})"
    )
    assert whole <= MOST_SECONDS
    assert alone / whole >= LEAST_RATIO
