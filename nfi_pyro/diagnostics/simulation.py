"""Simulation-based calibration of a guide: factors drawn from the model, ranked and covered."""

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from nfi_pyro.data.panel import Panel
from nfi_pyro.data.training.windows import Outcome
from nfi_pyro.diagnostics.ranks import judge_ranks
from nfi_pyro.diagnostics.results.simulation import SimulationCalibration
from nfi_pyro.dims import DATE
from nfi_pyro.distributions.factor_mixture import FactorMixture
from nfi_pyro.errors import SpecError
from nfi_pyro.posterior.blocks import DateRange
from nfi_pyro.posterior.factor_blocks import (
    FactorBlock,
    Guide,
    draw_normal,
    draw_returns,
    open_factor_pass,
    prior_of,
)
from nfi_pyro.svi.config import check_seed
from nfi_pyro.svi.trained import SVIFit

N_ASSETS = 10  # sampled, whose factor returns are ranked beside the factors


def simulation_based_calibration(
    fit: SVIFit,
    panel: Panel,
    *,
    guide: Guide = "posterior",
    n_draws: int = 99,
    n_repeats: int = 4,
    dates: DateRange | None = None,
    seed: int = 0,
    level: float = 0.9,
) -> SimulationCalibration:
    """Return how a guide ranks factors that made the returns it sees, and whether it covers them.

    Features and the pattern of observed returns are the panel's own. On every date and in every
    repeat factors come from the prior, returns from the law given those, and the guide is asked
    for factors given these returns. Were it the posterior, the truth's rank among its draws would
    be uniform, whatever the features (Cook, Gelman and Rubin 2006; Talts et al. 2018). This judges
    the inference given the networks, not the model: no real return enters.

    Ranked are the factors ``z_k``; the factor returns ``beta_i.z`` of ten assets drawn by `seed`;
    and that of the equal-weight book of all assets that entered. The last two are the same
    however the factors are turned. Dates without an observed return do not count.

    Parameters
    ----------
    fit : SVIFit
    panel : Panel
    guide : {"posterior", "encoder"} or callable
        See `nfi_pyro.posterior.factor_blocks.open_factor_pass`.
    n_draws : int
        Of the guide per date and repeat, >= 9; 99 make the intervals of 80, 90 and 98 percent
        exact.
    n_repeats : int
        >= 1; repeats times dates are the independent cells.
    dates : pair of str, optional
        First and last date, inclusive. By default every date with a full window.
    seed : int
    level : float
        Of the central intervals, in (0, 1).

    Raises
    ------
    SpecError
        If an option is out of range, the model has no factors, or no encoder where one is asked
        for.
    PanelError
        If the panel's label has another timing or unit than the fit's.
    """
    if n_repeats < 1:
        raise SpecError(
            f"n_repeats must be >= 1; got {n_repeats} at simulation_based_calibration. Use four."
        )
    if n_draws < 9:
        raise SpecError(
            f"n_draws must be >= 9; got {n_draws} at simulation_based_calibration. Use 99."
        )
    generator = torch.Generator().manual_seed(check_seed(seed))
    visit, blocks = open_factor_pass(fit, panel, guide, dates)
    present = np.flatnonzero(visit.windows.entered[visit.span].any(0).numpy())
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.choice(present, min(N_ASSETS, len(present)), replace=False))
    parts = [
        torch.stack([_rank(block, chosen, n_draws, generator) for _ in range(n_repeats)])
        for block in blocks
    ]  # (repeat, date, quantity) each
    factors = [str(name) for name in fit.provenance["factors"]]
    assets = [str(name) for name in visit.windows.assets[chosen]]
    ranks = xr.DataArray(
        torch.cat(parts, 1).permute(2, 0, 1).numpy(),
        coords={
            "quantity": [*factors, *(f"asset {name}" for name in assets), "book"],
            "kind": (
                "quantity",
                ["factor"] * len(factors) + ["asset"] * len(assets) + ["book"],
            ),
            DATE: visit.dates,
        },
        dims=("quantity", "repeat", DATE),
        name="rank",
    )
    name = guide if isinstance(guide, str) else getattr(guide, "__name__", type(guide).__name__)
    return judge_ranks(ranks, n_draws, level=level, guide=name)


def simulate_outcome(
    law: FactorMixture, observed: Tensor, generator: torch.Generator
) -> tuple[Tensor, Outcome]:
    """Return factors (date, factor) from the prior, and returns given them where observed."""
    z = draw_normal(prior_of(law), 1, generator)
    value = draw_returns(law, z, generator)[0]
    return z[0], Outcome(torch.where(observed, value, 0.0), observed)


def _rank(
    block: FactorBlock, chosen: np.ndarray, n_draws: int, generator: torch.Generator
) -> Tensor:
    """Return the ranks of one repeat (date, quantity), NaN where there is nothing to rank."""
    law, entered = block.law, block.entered
    truth, outcome = simulate_outcome(law, block.outcome.observed, generator)
    draws = draw_normal(block.guide(law, outcome), n_draws, generator)
    size = law.beta.shape[-1]
    eye = torch.eye(size, dtype=law.beta.dtype).expand(len(truth), size, size)
    count = entered.sum(1, keepdim=True).clamp(min=1)
    book = torch.where(entered.unsqueeze(-1), law.beta, 0.0).sum(1) / count
    weights = torch.cat([eye, law.beta[:, chosen], book.unsqueeze(1)], 1)
    here = torch.einsum("dqk,dk->dq", weights, truth)
    there = torch.einsum("dqk,sdk->sdq", weights, draws)
    ranks = (there < here).sum(0).double()
    known = torch.cat(
        [
            torch.ones_like(eye[..., 0], dtype=torch.bool),
            entered[:, chosen],
            entered.any(1)[:, None],
        ],
        1,
    )
    return torch.where(known & outcome.observed.any(1, keepdim=True), ranks, torch.nan)
