r"""Friedman's H statistic: the share of the joint effect of two factors that is interaction.

With F the expected return of a law and partial dependences over a sample of n exposures, all of
them centred over that sample,

    F_jk(x) = 1/n sum_b F(x_j, x_k, rest of b)      F_j, F_k alike with one exposure

    H^2_jk = sum_a (F_jk - F_j - F_k)^2 / sum_a F_jk^2       at the exposures of a

(Friedman and Popescu, 2008, section 8.1). It takes differences where a Hessian takes derivatives,
so it does not need a smooth law, and averages over the other factors. It is a share: of two factors
that hardly matter it may be large and mean nothing, which is why the size of the interaction
stands beside it. Partial dependence combines exposures of different assets; where factors correlate
some of these lie where no asset is.
"""

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from nfi_pyro.attribution.couplings.coupling import PAIR, pair_coords
from nfi_pyro.diagnostics.dim_checks import require_options
from nfi_pyro.errors import SpecError, name_places
from nfi_pyro.posterior.exposure_pricing import PricingLaw
from nfi_pyro.svi.config import check_seed

_WHERE = "friedman_h_squared"
_NOTHING = 1e-20  # of the squared expected return: an effect this small is rounding


def friedman_h_squared(
    laws: PricingLaw | Sequence[PricingLaw],
    pairs: Sequence[tuple[str, str]],
    *,
    n_points: int = 50,
    seed: int = 0,
) -> xr.Dataset:
    """Return Friedman's H squared of pairs of factors, and the size of their interaction.

    0 for a law that is additive in the two factors, 1 where they act through a product of centred
    independent exposures alone. Several laws are pooled: sums of squares over all their points.

    Parameters
    ----------
    laws : PricingLaw or sequence of PricingLaw
        Of the same factors, for example of several dates.
    pairs : sequence of (str, str)
        Names of two different factors each.
    n_points : int
        Most exposures of each law's date, >= 2, drawn without replacement; all of them where there
        are no more. A pair costs their square in evaluations of the law.
    seed : int
        Of the points; every pair sees the same ones. Global generators are not touched.

    Returns
    -------
    Dataset over (pair,)
        `h_squared`, >= 0; NaN where neither factor moves the expected return. With few points or
        correlated exposures it may exceed 1. `interaction_scale`: root mean square of
        ``F_jk - F_j - F_k``, decimal return, >= 0. Coordinates `first` and `second`.

    Raises
    ------
    SpecError
        If there is no law, a law has fewer than two assets, a pair does not name two factors of
        the laws, or an option is out of range.
    """
    every = [laws] if isinstance(laws, PricingLaw) else list(laws)
    require_options(_WHERE, n_points=(n_points, 2, np.inf))
    rng = np.random.default_rng(check_seed(seed))
    places = _places(every, pairs)
    interaction, joint, level = np.zeros(len(places)), np.zeros(len(places)), 0.0
    count = 0
    for law in every:
        points = law.beta
        if len(points) > n_points:
            drawn = rng.choice(len(points), size=n_points, replace=False)
            points = points[torch.from_numpy(np.sort(drawn))]
        with torch.no_grad():
            level += float(law.marginal(points).mean.square().sum())
            single = {int(k): _dependence(law, points, [int(k)]) for k in np.unique(places)}
            for row, (j, k) in enumerate(places):
                both = _dependence(law, points, [int(j), int(k)])
                gap = both - single[int(j)] - single[int(k)]
                interaction[row] += float(gap.square().sum())
                joint[row] += float(both.square().sum())
        count += len(points)
    share = np.full(len(places), np.nan)
    np.divide(interaction, joint, out=share, where=joint > _NOTHING * level)
    return xr.Dataset(
        {
            "h_squared": (PAIR, share, {"units": "1"}),
            "interaction_scale": (
                PAIR,
                np.sqrt(interaction / count),
                {"units": "decimal return"},
            ),
        },
        coords=pair_coords(every[0].factors, places),
    )


def _places(laws: Sequence[PricingLaw], pairs: Sequence[tuple[str, str]]) -> np.ndarray:
    """Return the positions of the pairs' factors, (pair, 2), after a look at laws and names."""
    if not laws:
        raise SpecError(f"laws must hold a law; got none at {_WHERE}. Pass pricing_law(fit, ...).")
    factors = laws[0].factors
    other = [str(law.date)[:10] for law in laws if law.factors != factors]
    if other:
        raise SpecError(
            f"laws must have the same factors; got others on {name_places(other)} at {_WHERE}. "
            "Take them from one fit."
        )
    lonely = [str(law.date)[:10] for law in laws if len(law.beta) < 2]
    if lonely:
        raise SpecError(
            f"a law must have two assets or more; got fewer on {name_places(lonely)} at {_WHERE}. "
            "Pass other dates."
        )
    wrong = [
        str(pair)
        for pair in pairs
        if len(pair) != 2 or pair[0] == pair[1] or not set(pair) <= set(factors)
    ]
    if wrong or not pairs:
        named = name_places(wrong) if wrong else "none"
        raise SpecError(
            f"pairs must name two different factors each; got {named} at {_WHERE}. Choose among "
            f"{name_places(factors)}."
        )
    return np.array([[factors.index(name) for name in pair] for pair in pairs])


def _dependence(law: PricingLaw, points: Tensor, held: list[int]) -> Tensor:
    """Return the centred partial dependence on some factors at each point, (point,)."""
    grid = points.expand(len(points), *points.shape).clone()  # (point, background, factor)
    grid[..., held] = points[:, None, held]
    value = law.marginal(grid).mean.mean(dim=1)
    return value - value.mean()
