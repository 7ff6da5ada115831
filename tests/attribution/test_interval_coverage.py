"""Whether intervals from draws of the last layers hold what they claim, over simulated fits."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from nfi_pyro.attribution.sensitivities.sensitivity import sensitivity
from nfi_pyro.data.panel import Panel, check_panel
from nfi_pyro.data.simulate import SimulationSpec, simulate_panel
from nfi_pyro.distributions.heads import HeadSpec
from nfi_pyro.mixture_pricing import MixturePricing, MixturePricingSpec
from nfi_pyro.posterior import draw_fits
from nfi_pyro.posterior.intervals import interval_over
from nfi_pyro.svi import SVIConfig, SVIFit, fit_svi

FITS, EXPOSURES, DAILY = 100, 3, 0.02
SPEC = MixturePricingSpec(
    n_exposures=EXPOSURES,
    hidden_size=6,
    n_components=2,
    standardise=False,
    heads=HeadSpec(kind="full", alpha_scale=0.3, start_scale=0.1),
)
CONFIG = SVIConfig(
    n_epochs=60, block_size=14, learning_rate=0.02, progress=False, device="cpu", keep="last",
    transforms=(),
)  # fmt: skip


def exposures() -> Panel:
    spec = SimulationSpec(n_dates=70, n_assets=41, n_features=EXPOSURES, n_factors=2,
                          missing_share=0.0)  # fmt: skip
    panel = simulate_panel(spec, seed=5)[0]
    values = panel["features"].values
    panel["features"].values[:] = (values - np.nanmean(values, (0, 1))) / np.nanstd(values, (0, 1))
    return panel


def planted(panel: Panel, seed: int) -> tuple[Panel, np.ndarray]:
    """Return a panel priced by a network of its own, and the mean slope of its expected return.

    Trunk and last layers of that network are drawn anew: the fit does not know either.
    """
    truth = MixturePricing(SPEC, seed=1000 + seed).double()
    assert truth.heads is not None
    layers = dict(truth.named_parameters())
    beta = torch.from_numpy(np.nan_to_num(panel["features"].values)).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        draw = truth.heads.draw_prior(1, seed=100 + seed)[0]
        for name, weights in truth.heads.weights(draw).items():
            layers[name].copy_(weights)
        logits, loc, scale = truth.network(beta)
        chance = torch.softmax(logits, -1).flatten(0, 1)
        which = torch.multinomial(chance, 1, generator=generator).view(*loc.shape[:2], 1)
        noise = torch.randn(loc.shape[:2], generator=generator, dtype=torch.float64)
        returns = (loc.gather(-1, which) + scale.gather(-1, which) * noise[..., None])[..., 0]
        unit = DAILY / float(returns.std())
        slope = truth.network.alpha.jet(beta.flatten(0, 1)).gradient.mean(0) * unit
    priced = panel.copy(deep=True)
    known = np.isfinite(priced["forward_return"].values)
    priced["forward_return"].values[:] = np.where(known, unit * returns.numpy(), np.nan)
    return check_panel(priced), slope.numpy()


def mean_slope(fits: tuple[SVIFit, ...], panel: Panel) -> Iterator[np.ndarray]:
    found = sensitivity(fits, panel)["jacobian"].mean(("date", "asset"))
    bounds = interval_over(found)
    yield from (bounds.sel(bound=side).values for side in ("lower", "upper"))


@pytest.mark.slow
def test_ninety_percent_intervals_of_the_mean_price_hold_the_planted_one(capsys) -> None:
    """Of 300 prices (100 fits, 3 exposures), measured 90.7 percent.

    Neither the trunk nor the last layers of the planted network are known to the fit; trunks are
    learned but not drawn, which could leave intervals too narrow, and here does not. Prices of
    one fit are correlated: the bounds below are four standard errors of 100 fits wide.
    """
    panel = exposures()
    held = []
    for seed in range(FITS):
        priced, slope = planted(panel, seed)
        fit = fit_svi(MixturePricing(SPEC), priced, config=CONFIG, seed=seed)
        lower, upper = mean_slope(draw_fits(fit, draws=19, seed=seed), priced)
        held.append((lower <= slope) & (slope <= upper))
    share = float(np.mean(held))
    with capsys.disabled():
        print(f"\nintervals of 90 percent hold {share:.3f} of {np.size(held)} planted mean prices")
    assert 0.78 < share < 0.98
