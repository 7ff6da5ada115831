"""Restarts beside each other: R-hat of what is identified, and how far forecasts agree.

The factors themselves are not compared: exposures and factors may be permuted, flipped, scaled
and, where volatilities move together, rotated without any change of the law, and a shift of the
factors is taken up by the specific mean. Two fits of the same law would give a large R-hat of z.
``beta' z``, of an asset or a portfolio, is the same under all of these.

R-hat was made for Markov chains, where a large one tells to run longer. Here every draw of a
restart is an independent draw of its own posterior: a large one tells that restarts ended in
different local optima, which no further draw mends.
"""

import warnings
from collections.abc import Sequence
from importlib import import_module

import numpy as np
import xarray as xr

from nfi_pyro.diagnostics.dim_checks import require_options, require_same_labels
from nfi_pyro.diagnostics.results.restarts import RestartComparison
from nfi_pyro.diagnostics.results.verdict import Verdict
from nfi_pyro.errors import SpecError
from nfi_pyro.posterior.alignment import align_factors
from nfi_pyro.posterior.draws import Posterior
from nfi_pyro.posterior.ensemble import ForecastEnsemble
from nfi_pyro.posterior.return_forecast import ReturnForecast

LOW_R_HAT = 1.1
_KINDS = ("book", "cell", "portfolio")
_SAME, _OTHER = (0.95, 0.9), (0.5, 0.5)  # share of low R-hat, and correlation of means
_LEAST_DRAWS = 10
_LEAST_ASSETS = 3
_WHERE = "compare_restarts"


def compare_restarts(
    posteriors: Sequence[Posterior],
    forecasts: Sequence[ReturnForecast] | None = None,
    *,
    n_quantities: int = 200,
    seed: int = 0,
) -> RestartComparison:
    """Return how far restarts of one fit agree on what is identified, and on forecasts.

    Parameters
    ----------
    posteriors : sequence of Posterior
        One per restart, two or more, over the same dates and assets; numbers of factors may
        differ. Random last layers enter the book's return; cells and portfolios are at the
        guide's location.
    forecasts : sequence of ReturnForecast, optional
        Of the same restarts, in the same order.
    n_quantities : int
        At most so many dates of the equal-weight book, so many ``beta' z`` of assets, and random
        long-short portfolios (normal weights, gross 1), each on a random date; from 1 to 10,000.
    seed : int
        Of the choice of cells, portfolios and draws.

    Returns
    -------
    RestartComparison
        Good: R-hat below 1.1 for 95 percent of the quantities, and predictive means that
        correlate by .9 or more. Bad: for less than half, or by less than .5.

    Raises
    ------
    SpecError
        If there are fewer than two restarts or ten draws, counts differ, or there is nothing to
        compare: no latent factors and no forecasts.
    ShapeError
        If dates or assets differ.
    """
    require_options(_WHERE, n_quantities=(n_quantities, 1, 10_000), seed=(seed, 0, 2**63))
    latent = _check(posteriors, forecasts)
    r_hat = _no_r_hat()
    if latent:
        r_hat = _r_hats(posteriors, n_quantities, seed)
    summary = _summarise(r_hat)
    correlations: list[xr.DataArray | None] = [None, None]
    between = float("nan")
    if forecasts is not None:
        ensemble = ForecastEnsemble(tuple(forecasts))
        correlations = [
            _mean_correlations([law.mean for law in forecasts]),
            _mean_correlations([law.standard_deviation for law in forecasts]),
        ]
        between = float(ensemble.between_variance.mean() / ensemble.variance.mean())
    return RestartComparison(
        n_restarts=len(posteriors),
        r_hat=r_hat,
        summary=summary,
        mean_correlation=correlations[0],
        deviation_correlation=correlations[1],
        between_share=between,
        raw_factors=_raw_factors(posteriors) if latent else None,
        verdict=_judge(summary.sel(kind="all"), correlations[0], between),
    )


def _check(posteriors: Sequence[Posterior], forecasts: Sequence[ReturnForecast] | None) -> bool:
    """Return whether there are latent factors, after refusing what cannot be compared."""
    if len(posteriors) < 2:
        raise SpecError(
            f"restarts must be two or more to be compared; got {len(posteriors)} at {_WHERE}. "
            "Fit again with another seed, or use fit_restarts."
        )
    if forecasts is not None and len(forecasts) != len(posteriors):
        raise SpecError(
            f"forecasts must be one per restart; got {len(forecasts)} for {len(posteriors)} "
            f"posteriors at {_WHERE}. Forecast with each fit."
        )
    latent = {posterior.has_factors for posterior in posteriors}
    if latent == {False} and forecasts is None:
        raise SpecError(
            "restarts must have latent factors or forecasts to be compared; got neither at "
            f"{_WHERE}. Pass forecasts=."
        )
    if len(latent) > 1:
        raise SpecError(
            f"restarts must be of one model; got some without factors at {_WHERE}. Compare "
            "models with compare_forecasts."
        )
    first = posteriors[0].constants["observed"]
    for posterior in posteriors[1:]:
        require_same_labels(posterior.constants["observed"], first, "posteriors", _WHERE)
    draws = min((p.z.sizes["draw"] for p in posteriors if p.has_factors), default=_LEAST_DRAWS)
    if draws < _LEAST_DRAWS:
        raise SpecError(
            f"posteriors must have at least {_LEAST_DRAWS} draws; got {draws} at {_WHERE}. "
            "Draw a few hundred."
        )
    return latent == {True}


def _no_r_hat() -> xr.DataArray:
    """Return an R-hat of nothing."""
    coords = {"kind": ("quantity", np.empty(0, "U9")), "asset": ("quantity", np.empty(0, "U1"))}
    coords["date"] = ("quantity", np.empty(0, "datetime64[ns]"))
    return xr.DataArray(np.empty(0), dims="quantity", coords=coords, name="r_hat")


def _r_hats(posteriors: Sequence[Posterior], n: int, seed: int) -> xr.DataArray:
    """Return R-hat of dates of the book, of cells and of portfolios."""
    generator = np.random.default_rng(seed)
    betas = [p.constants["beta"].transpose("date", "asset", "factor") for p in posteriors]
    entered = np.logical_and.reduce([beta.notnull().all("factor").to_numpy() for beta in betas])
    held = np.flatnonzero(entered.any(1))
    if not held.size:
        raise SpecError(
            f"restarts must have a cell in common; got none at {_WHERE}. Sample posteriors of one "
            "panel."
        )
    days = np.sort(generator.choice(held, min(n, held.size), replace=False))
    cells = np.argwhere(entered)
    cells = cells[np.sort(generator.choice(len(cells), min(n, len(cells)), replace=False))]
    dates, books = _random_books(entered, n, generator)
    single = np.zeros((len(cells), entered.shape[1]))
    single[np.arange(len(cells)), cells[:, 1]] = 1.0
    places, weights = np.concatenate([cells[:, 0], dates]), np.concatenate([single, books])
    draws = min(p.z.sizes["draw"] for p in posteriors)
    chains = []
    for chain, (posterior, beta) in enumerate(zip(posteriors, betas, strict=True)):
        book = posterior.book_factor_return.transpose("draw", "date").to_numpy()[:draws, days]
        own = np.random.default_rng([seed, chain])
        parts = _factor_parts(posterior, beta.to_numpy(), places, weights)
        drawn = parts[0] + parts[1] * own.standard_normal((draws, len(places)))
        chains.append(np.concatenate([book, drawn], axis=1))
    sizes = (len(days), len(cells), len(dates))
    names = np.full(sum(sizes), "", dtype=object)
    names[len(days) : len(days) + len(cells)] = betas[0]["asset"].to_numpy()[cells[:, 1]]
    return xr.DataArray(
        _rank_normalised(np.stack(chains)),
        dims="quantity",
        coords={
            "kind": ("quantity", np.repeat(_KINDS, sizes)),
            "date": ("quantity", betas[0]["date"].to_numpy()[np.concatenate([days, places])]),
            "asset": ("quantity", names.astype(str)),
        },
        name="r_hat",
    )


def _random_books(
    entered: np.ndarray, n: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return positions of dates (book,) and long-short weights (book, asset) of gross 1."""
    dates = generator.choice(np.flatnonzero(entered.any(1)), n)
    weights = np.where(entered[dates], generator.standard_normal((n, entered.shape[1])), 0.0)
    return dates, weights / np.abs(weights).sum(1, keepdims=True)


def _factor_parts(
    posterior: Posterior, beta: np.ndarray, places: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation (quantity,) of ``weights' beta z`` on dates `places`."""
    exposure = np.empty((len(places), beta.shape[-1]))
    for row, (place, book) in enumerate(zip(places, weights, strict=True)):
        held = np.flatnonzero(book)
        exposure[row] = book[held] @ beta[place, held].astype(np.float64)
    moments = posterior.moments
    loc = moments["posterior_loc"].transpose("date", "factor").to_numpy()[places]
    covariance = moments["posterior_covariance"].transpose("date", "factor", "factor_other")
    within = np.einsum("qk,qkl,ql->q", exposure, covariance.to_numpy()[places], exposure)
    return (exposure * loc).sum(1), np.sqrt(np.maximum(within, 0.0))


def _rank_normalised(draws: np.ndarray) -> np.ndarray:
    """Return rank-normalised split R-hat (quantity,) of draws (chain, draw, quantity), by ArviZ."""
    with warnings.catch_warnings():  # ArviZ 0.23 announces 1.x once a day
        warnings.filterwarnings("ignore", r"\s*ArviZ is undergoing", FutureWarning)
        arviz = import_module("arviz")
    sampled = xr.Dataset({"value": (("chain", "draw", "quantity"), draws)})
    return np.asarray(arviz.rhat(sampled, method="rank")["value"])


def _summarise(r_hat: xr.DataArray) -> xr.Dataset:
    """Return median, share of low ones and number of R-hat by kind, and of all."""
    groups = {kind: r_hat.to_numpy()[r_hat["kind"].to_numpy() == kind] for kind in _KINDS}
    groups["all"] = r_hat.to_numpy()
    known = {kind: values[np.isfinite(values)] for kind, values in groups.items()}
    rows = [
        (np.median(v), np.mean(v < LOW_R_HAT), v.size) if v.size else (np.nan, np.nan, 0)
        for v in known.values()
    ]
    median, share, count = zip(*rows, strict=True)
    return xr.Dataset(
        {
            "median": ("kind", np.array(median)),
            "share_low": ("kind", np.array(share)),
            "n": ("kind", np.array(count)),
        },
        coords={"kind": list(groups)},
    )


def _mean_correlations(values: Sequence[xr.DataArray]) -> xr.DataArray:
    """Return correlations over assets, averaged over dates, (restart, restart_other)."""
    stacked = np.stack([value.transpose("date", "asset").to_numpy() for value in values])
    known = np.isfinite(stacked).all(0)
    count = known.sum(1)
    centred = np.where(known, stacked, 0.0)
    centred -= (centred.sum(-1) / np.maximum(count, 1))[..., None]
    centred = np.where(known, centred, 0.0)
    products = np.einsum("rda,sda->rsd", centred, centred)
    length = np.sqrt(np.einsum("rrd->rd", products))
    usable = (count >= _LEAST_ASSETS) & (length > 0.0).all(0)
    mean = np.full(products.shape[:2], np.nan)
    if usable.any():
        length = length[:, usable]
        mean = (products[..., usable] / (length[:, None] * length[None])).mean(-1)
    return xr.DataArray(mean, dims=("restart", "restart_other"), name="correlation")


def _raw_factors(posteriors: Sequence[Posterior]) -> xr.Dataset | None:
    """Return how well the factors of each further restart match the first one's, if they can."""
    n_factors = {posterior.z.sizes["factor"] for posterior in posteriors}
    if len(n_factors) > 1 or posteriors[0].z.sizes["date"] <= max(n_factors) + 1:
        return None
    found = [align_factors(posteriors[0], other) for other in posteriors[1:]]
    dims = ("restart", "factor")
    return xr.Dataset(
        {
            "correlation": (dims, np.stack([one.correlation for one in found])),
            "affine_r_squared": (dims, np.stack([one.affine_r_squared for one in found])),
        },
        coords={"restart": np.arange(1, len(posteriors)), "factor": list(found[0].factors)},
    )


def _judge(total: xr.Dataset, means: xr.DataArray | None, between: float) -> Verdict:
    """Return what the restarts have in common, and what to do."""
    said, scores = [], []
    if int(total["n"]):
        share = float(total["share_low"])
        scores.append((share, _SAME[0], _OTHER[0]))
        said.append(
            f"R-hat of the book, of assets' beta'z and of random portfolios is below {LOW_R_HAT} "
            f"for {share:.0%} of {int(total['n'])} (median {float(total['median']):.2f})"
        )
    if means is not None:
        pairs = means.to_numpy()[np.triu_indices(len(means), 1)]
        if np.isfinite(pairs).all():
            scores.append((float(pairs.mean()), _SAME[1], _OTHER[1]))
            said.append(f"predictive means of two restarts correlate by {pairs.mean():.2f}")
        said.append(f"restarts make {between:.1%} of the predictive variance")
    head = "; ".join(said)
    head = f"{head[:1].upper()}{head[1:]}."
    if not scores:
        return Verdict("unknown", f"{head} Nothing varies enough to be compared: use more dates.")
    if all(score >= good for score, good, _ in scores):
        return Verdict("good", f"{head} The restarts agree: any one of them may stand for all.")
    action = (
        "The restarts are different local optima: use the ensemble of their forecasts, and report "
        "the spread between them. Draws are independent, so more of them would change nothing."
    )
    if any(score < bad for score, _, bad in scores):
        return Verdict("bad", f"{head} {action}")
    return Verdict("doubtful", f"{head} {action}")
