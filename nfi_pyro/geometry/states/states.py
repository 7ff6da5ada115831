r"""The state of the market's factors, N(m_t, S_t), as a point of a manifold; distances of dates.

S_t is diagonal in every model here, so distances, geodesics and midpoints are in closed form, see
`nfi_pyro.geometry.states.half_planes`. All distances are dimensionless.

What is identified. A law of returns does not change when its factors are permuted, flipped, scaled
and shifted, each by the same amount on all dates. Neither does the distance between two of its
dates, so a total distance needs no canonical form. What does need one: parts by factor, laid beside
those of another fit, and any distance between a state of one fit and a state of another, which this
module does not offer.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import xarray as xr

from nfi_pyro.dims import CHAIN, DATE, FACTOR
from nfi_pyro.errors import ShapeError, SpecError, name_places
from nfi_pyro.geometry.results.states import StateDistances
from nfi_pyro.geometry.states.gaussian_bounds import distance_bounds
from nfi_pyro.geometry.states.half_planes import (
    factor_distances,
    jeffreys_divergence,
    state_distance,
    state_geodesic,
)
from nfi_pyro.geometry.states.state_checks import (
    FACTOR_OTHER,
    SAMPLE_DIMS,
    check_covariances,
    check_dates,
    position_of,
    read_states,
    refuse_dates,
    sample_dims,
)
from nfi_pyro.posterior.alignment import align_factors
from nfi_pyro.posterior.draws import Posterior
from nfi_pyro.posterior.return_forecast import Date, ReturnForecast

DATE_OTHER = "date_other"
LAWS = ("prior", "posterior", "encoder")
_DISTANCE = {"units": "1", "long_name": "Fisher-Rao distance"}
Source = ReturnForecast | Posterior


def factor_states(source: Source | Sequence[Source], law: str = "prior") -> xr.Dataset:
    """Return the factors' law by date: what the functions of this module take.

    Several posteriors are restarts of one model on the same dates: the factors of each are matched
    to those of the first (`align_factors`: permutation, sign, scale), so that parts by factor can
    be compared. Forecasts have nothing to match them by and are taken as they are.

    Parameters
    ----------
    source : ReturnForecast, Posterior, or a sequence of one of them
        Of a model with latent factors.
    law : {"prior", "posterior", "encoder"}
        ``prior`` is known at the close of the date; the others also know the returns that
        followed it, and need a Posterior.

    Returns
    -------
    Dataset
        `loc` and `scale` ([chain], date, factor), decimal return per unit exposure, and for the
        posterior of one fit `covariance` (date, factor, factor_other), whose diagonal is
        ``scale^2``. Attributes: `law`; for several, `factors_matched` (1 or 0) and
        `weak_factors`, names of those whose match means little.

    Raises
    ------
    SpecError
        If there is no source, a model has no factors or no such law, or the kinds are mixed.
    ShapeError
        If dates or numbers of factors differ.
    """
    if law not in LAWS:
        raise SpecError(
            f"law must be one of {name_places(LAWS)}; got {law!r} at factor_states. Choose one."
        )
    if isinstance(source, ReturnForecast | Posterior):
        return _state_of(source, law)
    sources = list(source)
    if not sources or len({type(one) for one in sources}) > 1:
        kinds = sorted({type(one).__name__ for one in sources})
        raise SpecError(
            f"source must be forecasts alone or posteriors alone, at least one; got {kinds} at "
            "factor_states. Pass one kind, one for each fit."
        )
    weak: list[str] = []
    first = sources[0]
    if isinstance(first, Posterior):
        matches = [align_factors(first, one) for one in sources[1:] if isinstance(one, Posterior)]
        turned = [match.apply(one) for match, one in zip(matches, sources[1:], strict=True)]  # type: ignore[arg-type]
        sources = [first, *turned]
        weak = sorted({name for match in matches for name in match.weak})
    states = [_state_of(one, law).drop_vars("covariance", errors="ignore") for one in sources]
    for place, state in enumerate(states[1:], start=1):
        for dim in (DATE, FACTOR):
            if not state.indexes[dim].equals(states[0].indexes[dim]):
                raise ShapeError(
                    f"sources must have the same {dim}s; got {state.sizes[dim]} against "
                    f"{states[0].sizes[dim]}, or others, at source {place}. Give restarts of one "
                    "model on one span."
                )
    stacked = xr.concat(states, dim=pd.RangeIndex(len(states), name=CHAIN))
    matched = int(isinstance(first, Posterior))
    return stacked.assign_attrs(law=law, factors_matched=matched, weak_factors=weak)


def state_distances(states: xr.Dataset, *, level: float = 0.9) -> StateDistances:
    """Return the distance from each date to the next, travelled so far, and from the start.

    Parameters
    ----------
    states : Dataset
        `loc` and `scale` ([chain], [draw], date, factor), as from `factor_states`. Scales are
        standard deviations; any unit, the same for both. A `covariance` is not used: the
        distance is that of the products of the factors' marginals; see `state_distance_bounds`.
    level : float
        Of the intervals over chains and draws, in (0, 1).

    Returns
    -------
    StateDistances

    Raises
    ------
    ShapeError
        If dimensions are missing, others, or differ.
    SpecError
        If a loc is not finite, a scale is not finite and > 0, dates do not increase or are fewer
        than 2, or `level` is out of range.
    """
    if not 0.0 < level < 1.0:
        raise SpecError(f"level must be in (0, 1); got {level} at state_distances. Pass 0.9.")
    loc, scale = read_states(states, "state_distances", n_dates=2)
    now, before = (slice(1, None), slice(None, -1))
    ends = (loc[..., before, :], scale[..., before, :], loc[..., now, :], scale[..., now, :])
    parts = factor_distances(*ends)
    step = np.linalg.norm(parts, axis=-1)
    start = (loc[..., :1, :], scale[..., :1, :])
    labels = states["loc"].transpose(*sample_dims(states), DATE, FACTOR).coords
    dims = (*sample_dims(states), DATE)

    def label(values: np.ndarray, name: str, first: float) -> xr.DataArray:
        width = [(0, 0)] * values.ndim
        width[len(dims) - 1] = (1, 0)
        full = np.pad(values, width, constant_values=first)
        own = (*dims, FACTOR)[: full.ndim]
        coords = {dim: labels[dim] for dim in own if dim in labels}
        return xr.DataArray(full, coords, own, name, attrs=_DISTANCE)

    found = {
        "step": label(step, "step", np.nan),
        "travelled": label(np.cumsum(step, axis=-1), "travelled", 0.0),
        "displacement": label(state_distance(*start, *ends[2:]), "displacement", 0.0),
    }
    jeffreys = label(np.sqrt(jeffreys_divergence(*ends)), "root_jeffreys", np.nan)
    return StateDistances(
        **found,
        by_factor=label(parts, "by_factor", np.nan),
        root_jeffreys=jeffreys.assign_attrs(long_name="root of the symmetrised KL divergence"),
        interval=_interval(found, level),
        level=level,
    )


def pairwise_state_distances(states: xr.Dataset) -> xr.DataArray:
    """Return the distance between every two dates, ([chain], [draw], date, date_other).

    Dimensionless; symmetric with zeros on the diagonal. `states` and errors as in
    `state_distances`; one date is enough.
    """
    loc, scale = read_states(states, "pairwise_state_distances", n_dates=1)
    n_dates = loc.shape[-2]
    found = np.empty((*loc.shape[:-1], n_dates))
    for date in range(n_dates):  # a row at a time: all pairs of all factors may not fit
        here = slice(date, date + 1)
        found[..., date, :] = state_distance(loc[..., here, :], scale[..., here, :], loc, scale)
    dims = (*sample_dims(states), DATE, DATE_OTHER)
    coords = {dim: states[dim].to_numpy() for dim in dims if dim in states.coords}
    coords[DATE_OTHER] = states[DATE].to_numpy()
    return xr.DataArray(found, coords, dims, "distance", attrs=_DISTANCE)


def state_path(
    states: xr.Dataset, start: Date, end: Date, fractions: Sequence[float] = (0.5,)
) -> xr.Dataset:
    """Return states on the shortest path between two dates; by default the midpoint.

    Parameters
    ----------
    states : Dataset
        As in `state_distances`.
    start, end : date
        Two of its dates.
    fractions : sequence of float
        Of the distance from `start`, in [0, 1]; the path has constant speed.

    Returns
    -------
    Dataset
        `loc` and `scale` ([chain], [draw], fraction, factor), in the unit of `states`.

    Raises
    ------
    ShapeError
        As in `state_distances`.
    SpecError
        As there, and if a date is not among the states or a fraction is outside [0, 1].
    """
    share = np.asarray(fractions, dtype=np.float64)
    outside = share[~((share >= 0.0) & (share <= 1.0))]
    if share.ndim != 1 or not share.size or outside.size:
        raise SpecError(
            f"fractions must be a sequence of numbers in [0, 1]; got {fractions} at state_path. "
            "Pass (0.5,) for the midpoint."
        )
    loc, scale = read_states(states, "state_path", n_dates=1)
    first, last = ([position_of(states, date)] for date in (start, end))
    ends = (loc[..., first, :], scale[..., first, :], loc[..., last, :], scale[..., last, :])
    point = state_geodesic(*ends, share[:, None])
    dims = (*sample_dims(states), "fraction", FACTOR)
    coords = {dim: states[dim].to_numpy() for dim in dims if dim in states.coords}
    coords["fraction"] = share
    return xr.Dataset({"loc": (dims, point[0]), "scale": (dims, point[1])}, coords)


def state_distance_bounds(states: xr.Dataset) -> xr.Dataset:
    """Return bounds of the distance from the previous date between laws with full covariance.

    There is no closed form in general; see `nfi_pyro.geometry.states.gaussian_bounds`.

    Parameters
    ----------
    states : Dataset
        `loc` (date, factor) and `covariance` (date, factor, factor_other), for example from
        ``factor_states(posterior, "posterior")``.

    Returns
    -------
    Dataset over (date,)
        `lower` and `upper`, dimensionless, NaN on the first date; `exact`, whether `upper` is the
        distance: equal means, or proportional covariances, or a mean that moved in one eigenspace
        of the second covariance relative to the first.

    Raises
    ------
    ShapeError
        If dimensions are missing or others.
    SpecError
        If a value is not finite, a covariance is not symmetric and positive definite, or there
        are fewer than 2 dates.
    """
    where = "state_distance_bounds"
    for name, dims in (("loc", {DATE, FACTOR}), ("covariance", {DATE, FACTOR, FACTOR_OTHER})):
        if name not in states or set(states[name].dims) != dims:
            raise ShapeError(
                f"states must have {name} over {name_places(sorted(dims))}; got "
                f"{tuple(states[name].dims) if name in states else 'none'} at {where}. Take one "
                'fit: factor_states(posterior, "posterior").'
            )
    check_dates(states, where, 2)
    loc = states["loc"].transpose(DATE, FACTOR).to_numpy().astype(np.float64)
    matrix = states["covariance"].transpose(DATE, FACTOR, FACTOR_OTHER).to_numpy()
    covariance = check_covariances(matrix.astype(np.float64), states, where)
    refuse_dates(~np.isfinite(loc).all(axis=-1), states, "loc must be finite", where)
    lower, upper, exact = distance_bounds(loc[:-1], covariance[:-1], loc[1:], covariance[1:])
    return xr.Dataset(
        {
            "lower": (DATE, np.r_[np.nan, lower], _DISTANCE),
            "upper": (DATE, np.r_[np.nan, upper], _DISTANCE),
            "exact": (DATE, np.r_[False, exact]),
        },
        {DATE: states[DATE]},
    )


def _state_of(source: Source, law: str) -> xr.Dataset:
    """Return the law of one fit."""
    if isinstance(source, ReturnForecast):
        data, prefix = source.data, "factor"
        if law != "prior":
            raise SpecError(
                f"a forecast must be asked for the law that it knows, the prior; got {law!r} at "
                "factor_states. Pass a Posterior."
            )
    else:
        data, prefix = source.moments, law
    names = {f"{prefix}_loc": "loc", f"{prefix}_scale": "scale"}
    if not set(names) <= set(data.data_vars):
        raise SpecError(
            f"a source must have the factors' {law} law; got {name_places(data.data_vars)} at "
            "factor_states. Use nfi, factor_vae or linear_factor, and another law if it has some."
        )
    if law == "posterior" and "posterior_covariance" in data:
        names["posterior_covariance"] = "covariance"
    state = data[list(names)].rename(names)
    return state.astype(np.float64).assign_attrs(law=law)


def _interval(found: Mapping[str, xr.DataArray], level: float) -> xr.Dataset | None:
    """Return quantiles over fits and draws, or None for a single one."""
    dims = [dim for dim in SAMPLE_DIMS if dim in found["step"].dims]
    if int(np.prod([found["step"].sizes[dim] for dim in dims], dtype=int)) < 2:
        return None
    bounds = [0.5 - 0.5 * level, 0.5 + 0.5 * level]
    ranges = xr.Dataset(dict(found)).quantile(bounds, dim=dims, skipna=False)
    return ranges.rename(quantile="bound").assign_coords(bound=["lower", "upper"])
