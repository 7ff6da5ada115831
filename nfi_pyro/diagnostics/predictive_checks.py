"""Prior and posterior predictive checks: what real cross-sections have and the model's have not."""

import math

import numpy as np
import torch
import xarray as xr

from nfi_pyro.data.panel import Panel
from nfi_pyro.diagnostics.cross_sections import (
    STATISTICS,
    SUMMARIES,
    describe_cross_sections,
    summarise_dates,
)
from nfi_pyro.diagnostics.results.predictive_checks import PredictiveChecks
from nfi_pyro.diagnostics.results.verdict import Verdict
from nfi_pyro.dims import DATE, DRAW
from nfi_pyro.errors import ShapeError, SpecError
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

PRIOR, POSTERIOR = "prior", "posterior"
_CELLS = 2**21  # returns in hand at a time
_BOUNDS = (0.05, 0.95)
_LEAST_DATES, _LEAST_DRAWS = 20, 100
_MISSED = 0.02  # two-sided p-value
_WORDS = {
    "market": "the mean over assets",
    "cross_sectional_sd": "the standard deviation over assets",
    "skewness": "the skewness over assets",
    "excess_kurtosis": "the excess kurtosis over assets",
    "pairwise_product": "the mean product of two assets",
    "market_sd": "the standard deviation over dates of the mean",
    "market_clustering": "the clustering over dates of the mean's size",
}
_RISK = ("cross_sectional_sd", "market_sd")
_MUCH = 0.25  # of a standard deviation's own size


def check_predictions(
    fit: SVIFit,
    panel: Panel,
    *,
    guide: Guide = "posterior",
    n_draws: int = 400,
    dates: DateRange | None = None,
    seed: int = 0,
) -> PredictiveChecks:
    """Return how the cross-sections that a model makes differ from the real ones.

    Every replicate has the panel's own features and pattern of observed returns: only cells with
    a real return count, in real and made returns alike. Networks stay at their point estimate, so
    the bands hold no doubt about those.

    Parameters
    ----------
    fit : SVIFit
    panel : Panel
        With `forward_return` of the dates.
    guide : {"posterior", "encoder"} or callable
        Of source `posterior`, see `nfi_pyro.posterior.factor_blocks.open_factor_pass`.
    n_draws : int
        Replicates of each source, >= 100.
    dates : pair of str, optional
        First and last date, inclusive. By default every date with a full window. On training
        dates even the prior has, through its weights, seen the returns.
    seed : int

    Raises
    ------
    SpecError
        If an option is out of range, the model has no factors, or no encoder where one is asked
        for.
    PanelError
        If the panel's label has another timing or unit than the fit's.
    """
    if n_draws < _LEAST_DRAWS:
        raise SpecError(
            f"n_draws must be >= {_LEAST_DRAWS}; got {n_draws} at check_predictions. Use 400."
        )
    generator = torch.Generator().manual_seed(check_seed(seed))
    visit, blocks = open_factor_pass(fit, panel, guide, dates)
    unit = fit.return_scale
    real, made, shares = [], [], []
    for block in blocks:
        observed = block.outcome.observed.numpy()
        real.append(describe_cross_sections(block.outcome.forward_return.numpy() * unit, observed))
        made.append(_replicate(block, n_draws, unit, generator))
        shares.append(_factor_share(block))
    coords = {"statistic": list(STATISTICS), DATE: visit.dates}
    return judge_replicates(
        xr.DataArray(np.concatenate(real, -1), coords, ("statistic", DATE)),
        xr.DataArray(
            np.concatenate(made, -1),
            {"source": [PRIOR, POSTERIOR], **coords},
            ("source", "statistic", DRAW, DATE),
        ),
        xr.DataArray(np.concatenate(shares), {DATE: visit.dates}, (DATE,)),
    )


def _replicate(
    block: FactorBlock, n_draws: int, unit: float, generator: torch.Generator
) -> np.ndarray:
    """Return statistics of replicated dates (source, statistic, draw, date), float32."""
    law, observed = block.law, block.outcome.observed
    step = max(1, _CELLS // max(1, observed.numel()))
    found = []
    for factors in (prior_of(law), block.guide(law, block.outcome)):
        parts = []
        for start in range(0, n_draws, step):
            z = draw_normal(factors, min(step, n_draws - start), generator)
            returns = draw_returns(law, z, generator).numpy() * unit
            parts.append(describe_cross_sections(returns, observed.numpy()).astype(np.float32))
        found.append(np.concatenate(parts, 1))
    return np.stack(found)


def _factor_share(block: FactorBlock) -> np.ndarray:
    """Return the factors' share of the observed assets' variance (date,); NaN without any."""
    law, observed = block.law, block.outcome.observed
    shared = torch.where(observed, law.project_factors()[1], 0.0).sum(1)
    own = torch.where(observed, law.specific_variance, 0.0).sum(1)
    return torch.where(observed.any(1), shared / (shared + own), torch.nan).numpy()


def judge_replicates(
    observed: xr.DataArray, replicated: xr.DataArray, factor_share: xr.DataArray
) -> PredictiveChecks:
    """Return p-values of real statistics among replicated ones, with a verdict.

    A p-value is two-sided, ``2 min(P(T_rep <= T), P(T_rep >= T))``, with one draw added on each
    side. Those of source ``prior`` decide: posterior factors have seen the returns.

    Parameters
    ----------
    observed : DataArray, shape (statistic, date)
        As of `describe_cross_sections`; NaN on dates that do not count.
    replicated : DataArray, shape (source, statistic, draw, date)
        The same of replicates, NaN on the same dates; at least 100 draws; one source is
        ``prior``.
    factor_share : DataArray, shape (date,)

    Returns
    -------
    PredictiveChecks
        Good: no summary has a p-value below 0.02. Bad: the standard deviation of cross-sections
        or of the market is missed by more than a quarter. Doubtful: anything else is missed.
        Unknown: fewer than 20 dates count.

    Raises
    ------
    ShapeError
        If the dimensions or statistics are others.
    SpecError
        If there are fewer than 100 draws.
    """
    _check(observed, replicated)
    real = observed.to_numpy().astype(np.float64)
    made = replicated.to_numpy().astype(np.float64)
    counted = ~np.isnan(real[STATISTICS.index("market")])
    made[..., ~counted] = np.nan
    sources = replicated["source"].values
    table, replicates = _summarise(real, made, sources)
    band = np.full((made.shape[0], 2, *real.shape), np.nan)
    band[..., counted] = np.quantile(made[..., counted], _BOUNDS, axis=2).swapaxes(0, 1)
    out = (real < band[:, 0]) | (real > band[:, 1])
    outside = out[..., counted].mean(-1) if counted.any() else np.full(out.shape[:2], np.nan)
    coords = {"source": sources, "statistic": list(STATISTICS), DATE: observed[DATE].values}
    missed, verdict = _judge(table.sel(source=PRIOR), int(counted.sum()))
    return PredictiveChecks(
        by_date=observed,
        band=xr.DataArray(
            band, {**coords, "bound": list(_BOUNDS)}, ("source", "bound", "statistic", DATE)
        ),
        outside=xr.DataArray(
            outside, {"source": sources, "statistic": list(STATISTICS)}, ("source", "statistic")
        ),
        summaries=table,
        replicates=replicates,
        factor_share=factor_share,
        n_dates=int(counted.sum()),
        n_left_out=int((~counted).sum()),
        missed=missed,
        verdict=verdict,
    )


def _check(observed: xr.DataArray, replicated: xr.DataArray) -> None:
    """Refuse statistics of another shape, and too few draws."""
    wanted = (("statistic", DATE), ("source", "statistic", DRAW, DATE))
    if (observed.dims, replicated.dims) != wanted:
        raise ShapeError(
            f"observed and replicated must have the dimensions {wanted[0]} and {wanted[1]}; got "
            f"{observed.dims} and {replicated.dims} at judge_replicates. Transpose them."
        )
    for array in (observed, replicated):
        if (
            tuple(array["statistic"].values) != STATISTICS
            or array.sizes[DATE] != observed.sizes[DATE]
        ):
            raise ShapeError(
                f"observed and replicated must hold {', '.join(STATISTICS)} of the same dates; got "
                f"{', '.join(map(str, array['statistic'].values))} on {array.sizes[DATE]} dates at "
                "judge_replicates. Make both by describe_cross_sections."
            )
    if PRIOR not in replicated["source"].values:
        raise SpecError(
            f"a source of replicates must be '{PRIOR}'; got {replicated['source'].values.tolist()} "
            "at judge_replicates. Only those have not seen the returns."
        )
    if replicated.sizes[DRAW] < _LEAST_DRAWS:
        raise SpecError(
            f"replicated must hold at least {_LEAST_DRAWS} draws; got {replicated.sizes[DRAW]} at "
            "judge_replicates. Draw 400."
        )


def _summarise(
    real: np.ndarray, made: np.ndarray, sources: np.ndarray
) -> tuple[xr.Dataset, xr.DataArray]:
    """Return the table over (source, summary), and the replicates' summaries."""
    own = summarise_dates(real)  # (summary,)
    there = np.stack([summarise_dates(source) for source in made])  # (source, summary, draw)
    n_draws = there.shape[-1]
    below = (there <= own[:, None]).sum(-1)
    above = (there >= own[:, None]).sum(-1)
    p_value = np.minimum(1.0, 2.0 * (1.0 + np.minimum(below, above)) / (1.0 + n_draws))
    p_value[np.isnan(there).any(-1) | np.isnan(own)] = np.nan
    lower, upper = np.quantile(there, _BOUNDS, axis=-1)
    coords = {"source": sources, "summary": list(SUMMARIES)}
    columns = {
        "observed": np.broadcast_to(own, p_value.shape),
        "mean": there.mean(-1),
        "lower": lower,
        "upper": upper,
        "p_value": p_value,
    }
    dims = ("source", "summary")
    return (
        xr.Dataset({name: (dims, value) for name, value in columns.items()}, coords),
        xr.DataArray(there, coords, (*dims, DRAW)),
    )


def _judge(prior: xr.Dataset, n_dates: int) -> tuple[tuple[str, ...], Verdict]:
    """Return the summaries that prior replicates miss, and the verdict that names them."""
    if n_dates < _LEAST_DATES:
        return (), Verdict(
            "unknown",
            f"Only {n_dates} dates have enough observed assets; {_LEAST_DATES} are needed. Check "
            "more dates.",
        )
    missed = tuple(str(n) for n in prior["summary"].values[prior["p_value"].values < _MISSED])
    if not missed:
        return (), Verdict(
            "good",
            f"Over {n_dates} dates no statistic of real cross-sections is unusual among those the "
            "model makes before it sees the returns.",
        )
    parts, much = [], False
    for name in missed:
        row = prior.sel(summary=name)
        real, made = float(row["observed"]), float(row["mean"])
        side = "higher" if real > made else "lower"
        parts.append(
            f"{_WORDS.get(name, name)} is {side} than the model's ({real:.3g}, model "
            f"{float(row['lower']):.3g} to {float(row['upper']):.3g})"
        )
        much = much or (name in _RISK and not math.isclose(real, made, rel_tol=_MUCH))
    if much:
        fix = "Risk figures are off by that much: fit on dates like these, or recalibrate."
    else:
        fix = "Do not rely on figures that rest on these."
    return missed, Verdict(
        "bad" if much else "doubtful", f"In real returns {'; '.join(parts)}. {fix}"
    )
