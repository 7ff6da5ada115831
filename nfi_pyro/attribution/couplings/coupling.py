"""How strongly a pricing law couples its factors: sizes of the Hessian, in return units."""

import warnings
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
import torch
import xarray as xr

from nfi_pyro.attribution.results.coupling import CouplingScores
from nfi_pyro.attribution.sensitivities.targets import is_kinked
from nfi_pyro.data.panel import Panel
from nfi_pyro.diagnostics.block_bootstrap import draw_block_counts
from nfi_pyro.diagnostics.dim_checks import require_options
from nfi_pyro.dims import CHAIN
from nfi_pyro.errors import SpecError
from nfi_pyro.posterior.blocks import DateRange
from nfi_pyro.posterior.exposure_pricing import PricingLaw, pricing_laws, require_exposure_pricing
from nfi_pyro.posterior.fits import check_fits
from nfi_pyro.posterior.intervals import attained_level, factors_comparable
from nfi_pyro.svi.config import check_seed
from nfi_pyro.svi.trained import SVIFit

Bounds = dict[str, tuple[np.ndarray, np.ndarray]]

PAIR = "pair"
SCORES = ("score", "signed_score")
_WHERE = "coupling_scores"
_BOUNDS = (0.025, 0.975)
_LONGEST_BLOCK = 10
_DECIMAL = {"units": "decimal return"}


class ZeroHessianWarning(UserWarning):
    """A law whose slopes differ between assets has no second derivative anywhere."""


class Coupling(NamedTuple):
    """How strongly one law couples each pair of factors.

    Attributes
    ----------
    score : ndarray, shape (pair,)
        Decimal return, >= 0.
    signed_score : ndarray, shape (pair,)
        Decimal return.
    """

    score: np.ndarray
    signed_score: np.ndarray


class _Walk(NamedTuple):
    """What one fit says: scores (date, pair), factors, and dates that do not count."""

    score: np.ndarray
    signed_score: np.ndarray
    factors: tuple[str, ...]
    n_skipped: int


def law_coupling(law: PricingLaw) -> Coupling:
    r"""Return how strongly a date's law couples each pair of its factors.

    ``score_jk = mean_i |H_ijk| s_j s_k``, H the Hessian of the expected return at the exposures of
    asset i and s the standard deviation of exposures over the assets of the date (ddof 0): about
    how much more, in return, both exposures one standard deviation higher earn together than one
    by one. The signed score is the same of H itself (deck A, lines 163-167 and 323; market spec,
    rows 9 and 20).

    Parameters
    ----------
    law : PricingLaw

    Returns
    -------
    Coupling
        Pairs j < k, those of the first factor first. 0 where pricing is linear; NaN on a date
        with fewer than two assets.
    """
    first, second = np.triu_indices(len(law.factors), 1)
    if len(law.beta) < 2:
        missing = np.full(len(first), np.nan)
        return Coupling(missing, missing)
    with torch.no_grad():
        bend = law.hessian().numpy()[:, first, second]
    spread = law.beta.numpy().std(axis=0)
    unit = spread[first] * spread[second]
    return Coupling(np.abs(bend).mean(axis=0) * unit, bend.mean(axis=0) * unit)


def coupling_scores(
    fits: SVIFit | Sequence[SVIFit],
    panel: Panel,
    *,
    dates: DateRange | None = None,
    n_resamples: int = 200,
    seed: int = 0,
) -> CouplingScores:
    """Return how strongly fitted laws couple each pair of factors, and how sure that is.

    Scores are those of `law_coupling`, averaged over dates with equal weights. They say what the
    model believes, not that it is true: see `mine_couplings`.

    Parameters
    ----------
    fits : SVIFit or sequence of SVIFit
        Of nfi, mixture_pricing, neural_factor or linear_factor; several are restarts of one model
        or draws of one fit.
    panel : Panel
        With the fits' features and exposures; its `forward_return` is not read.
    dates : pair of str, optional
        First and last date, inclusive. By default every date with a full window.
    n_resamples : int
        Of the bootstrap, >= 2; used for one fit alone.
    seed : int
        Of the bootstrap. Global generators are not touched.

    Returns
    -------
    CouplingScores
        Bounds of several fits are the smallest and largest over them. Those of one are 95 percent
        of a moving-block bootstrap over dates (blocks of 10, or a quarter of fewer than 40
        dates): they say how scores vary over dates, and nothing of the fit's own uncertainty.
        A linear law has scores of exactly 0.

    Warns
    -----
    ZeroHessianWarning
        If slopes differ between assets and yet every Hessian is 0, as with a ReLU: scores of 0
        then say nothing.

    Raises
    ------
    SpecError
        If a model prices on hidden features (factor_vae), there is one factor only, no date has
        two assets, an option is out of range, or the fits are of several models, specs or labels.
        Restarts of a model that learns its exposures are refused too: factor z0 of one is not z0
        of another. Fits count as draws of one when they share seed and provenance, as those
        of `draw_fits` do.
    SplitError, PanelError
        If no date has a full window, or the panel is not the fits' kind.
    """
    require_options(_WHERE, n_resamples=(n_resamples, 2, np.inf))
    rng = np.random.default_rng(check_seed(seed))
    chains = checked_chains(fits)
    walks = [_over_dates(fit, panel, dates) for fit in chains]
    first = walks[0]
    if not len(first.score):
        raise SpecError(
            f"some date must have two assets or more; got {first.n_skipped} dates with fewer at "
            f"{_WHERE}. Pass other dates."
        )
    by_chain = {
        name: np.stack([getattr(walk, name).mean(axis=0) for walk in walks]) for name in SCORES
    }
    attrs = {"model": chains[0].model.name, "unit": str(chains[0].label["unit"])}
    if len(chains) > 1:
        return _label(first, by_chain, *_over_chains(by_chain), attrs)
    return _label(first, by_chain, *_over_blocks(first, n_resamples, rng), attrs)


def _over_chains(by_chain: dict[str, np.ndarray]) -> tuple[Bounds, str]:
    """Return the range over fits, and what it is."""
    n_chains = len(by_chain["score"])
    share = attained_level(n_chains, 1.0)
    interval = (
        f"smallest and largest over {n_chains} fits; one more falls between them with probability "
        f"{share:.2f}"
    )
    return {name: (own.min(axis=0), own.max(axis=0)) for name, own in by_chain.items()}, interval


def _over_blocks(walk: _Walk, n_resamples: int, rng: np.random.Generator) -> tuple[Bounds, str]:
    """Return the bootstrap's bounds over dates, and what they are."""
    n_dates = len(walk.score)
    block = max(1, min(_LONGEST_BLOCK, n_dates // 4))
    share = draw_block_counts(n_dates, block, n_resamples, rng) / n_dates
    bounds: Bounds = {}
    for name in SCORES:
        lower, upper = np.quantile(share @ getattr(walk, name), _BOUNDS, axis=0)
        bounds[name] = (lower, upper)
    return bounds, (
        f"95 percent over dates, bootstrap in blocks of {block}: of this one fit, nothing of how "
        "far another would differ"
    )


def pair_coords(factors: Sequence[str], pairs: np.ndarray) -> dict[Hashable, tuple[str, list[str]]]:
    """Return names of pairs (pair, 2) as coordinates: `pair`, `first` and `second`."""
    first, second = ([factors[place] for place in column] for column in pairs.T)
    names = [f"{one} x {other}" for one, other in zip(first, second, strict=True)]
    return {PAIR: (PAIR, names), "first": (PAIR, first), "second": (PAIR, second)}


def positions_of(table: xr.Dataset, factors: Sequence[str]) -> np.ndarray:
    """Return the positions of a table's pairs among the factors, (pair, 2)."""
    names = np.column_stack([table["first"].to_numpy(), table["second"].to_numpy()])
    return np.array([[factors.index(name) for name in row] for row in names.tolist()])


def checked_chains(fits: SVIFit | Sequence[SVIFit]) -> tuple[SVIFit, ...]:
    """Return the fits as a tuple, after a look at whether their factors are the same ones.

    Raises
    ------
    SpecError
        See `coupling_scores`.
    """
    chains = check_fits(fits)
    require_exposure_pricing(chains[0])
    if len(chains) > 1 and not factors_comparable(chains):
        raise SpecError(
            f"fits must have the same factors; got restarts of {chains[0].model.name}, whose "
            "learned factors are others under the same names. Pass one fit at a time, or draws of "
            "one."
        )
    return chains


def _over_dates(fit: SVIFit, panel: Panel, dates: DateRange | None) -> _Walk:
    """Return the scores of one fit, and warn of a law that cannot have any."""
    found: list[Coupling] = []
    n_skipped = 0
    factors: tuple[str, ...] = ()
    kinked, bent = False, False
    for law in pricing_laws(fit, panel, dates=dates):
        factors = law.factors
        if len(factors) < 2:
            raise SpecError(
                f"a coupling must have two factors; got {len(factors)} in this {fit.model.name}, "
                f"{factors[0]}. Fit a model with more."
            )
        own = law_coupling(law)
        if np.isnan(own.score).any():
            n_skipped += 1
            continue
        found.append(own)
        bent = bent or bool(own.score.any())
        if not (bent or kinked):
            with torch.no_grad():
                kinked = is_kinked(law.jacobian(), law.hessian())
    if kinked and not bent:
        warnings.warn(
            f"the Hessian of this {fit.model.name} is 0 everywhere though its slopes differ "
            "between assets: its activation is piecewise linear, and scores of 0 say nothing. Use "
            "a smooth one (tanh, silu, softplus).",
            ZeroHessianWarning,
            stacklevel=3,
        )
    size = len(factors) * (len(factors) - 1) // 2
    score, signed = (
        np.array([getattr(own, name) for own in found]).reshape(len(found), size) for name in SCORES
    )
    return _Walk(score, signed, factors, n_skipped)


def _label(
    walk: _Walk,
    by_chain: dict[str, np.ndarray],
    bounds: Bounds,
    interval: str,
    attrs: dict[str, str],
) -> CouplingScores:
    """Return the scores with their names, largest first."""
    order = np.argsort(-by_chain["score"].mean(axis=0), kind="stable")
    pairs = np.column_stack(np.triu_indices(len(walk.factors), 1))[order]
    coords = pair_coords(walk.factors, pairs)
    table, chains = {}, {}
    for name in SCORES:
        chains[name] = ((CHAIN, PAIR), by_chain[name][:, order], _DECIMAL)
        table[name] = (PAIR, by_chain[name].mean(axis=0)[order], _DECIMAL)
        for side, bound in zip(("lower", "upper"), bounds[name], strict=True):
            table[f"{name}_{side}"] = (PAIR, bound[order], _DECIMAL)
    return CouplingScores(
        table=xr.Dataset(table, coords, attrs),
        by_chain=xr.Dataset(chains, {**coords, CHAIN: np.arange(len(by_chain["score"]))}),
        factors=walk.factors,
        interval=interval,
        n_dates=len(walk.score),
        n_skipped=walk.n_skipped,
    )
