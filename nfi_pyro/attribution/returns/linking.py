"""Linking: effects of single dates as effects of the whole span, which compounds."""

from typing import Literal, get_args

import numpy as np
import xarray as xr

from nfi_pyro.attribution.results.brinson import EFFECT, GeometricEffects, LinkedEffects
from nfi_pyro.attribution.returns.brinson_draws import DRAW_DIMS, draws_first, name_dates
from nfi_pyro.diagnostics.dim_checks import require_same_labels
from nfi_pyro.dims import DATE
from nfi_pyro.errors import ShapeError, SpecError, name_places

Linker = Literal["carino", "menchero", "grap", "frongello"]
SUM_TOLERANCE = 1e-10
_DECIMAL = {"units": "decimal return"}


def link_effects(
    effects: xr.DataArray,
    *,
    portfolio_return: xr.DataArray,
    benchmark_return: xr.DataArray,
    method: Linker = "carino",
) -> LinkedEffects:
    r"""Return effects of all dates together, which sum to compound portfolio minus benchmark.

    Additive effects of single dates do not add up over dates, since returns compound. With
    ``d = r_p - r_b`` of a date, P and B compound and T dates, effect E of a date becomes:

    - `carino`: ``E k_t / k``, ``k_t = [ln(1 + r_p) - ln(1 + r_b)] / d``, k the same of P and B;
    - `menchero`: ``E (M + a_t)``, ``M = (P - B) / T / [(1 + P)^{1/T} - (1 + B)^{1/T}]``,
      ``a_t = d_t (P - B - M sum d) / sum d^2``;
    - `grap`: ``E prod_{s<t} (1 + r_{p,s}) prod_{s>t} (1 + r_{b,s})``;
    - `frongello`: ``F_t = E prod_{s<t} (1 + r_{p,s}) + r_{b,t} sum_{s<t} F_s``, which has the
      totals of `grap`.

    Differences are taken in logarithms, so that equal returns are limits and no special case:
    ``k_t`` tends to ``1 / (1 + r_b)`` and M to ``(1 + B)^{(T-1)/T}``; ``a_t`` is 0 where all d are.

    Parameters
    ----------
    effects : DataArray, shape (date, ...)
        Decimal return, finite, in periods that follow each other without overlap. Any additive
        attribution: by group and effect, by factor. Dimensions `sample`, `chain` and `draw` are
        draws, linked one by one.
    portfolio_return, benchmark_return : DataArray, shape (date,), or with the effects' draws
        Their difference is the sum of the date's effects; above -1.
    method : {"carino", "menchero", "grap", "frongello"}

    Returns
    -------
    LinkedEffects

    Raises
    ------
    ShapeError
        If dimensions or labels do not agree.
    SpecError
        If effects miss the difference of returns by more than 1e-10, a value is not finite, a
        return is -1 or less, dates do not increase, or the method is unknown.

    Notes
    -----
    Market specification, section 2.10; Bacon, Practical Portfolio Performance Measurement and
    Attribution (2008), chapter 8.
    """
    where = "link_effects"
    if method not in get_args(Linker):
        raise SpecError(
            f"method must be one of {name_places(get_args(Linker))}; got {method!r} at {where}. "
            "For effects that multiply use link_geometric."
        )
    table = _read_effects(effects, "effects", where)
    rest = [dim for dim in table.dims if dim != DATE and dim not in DRAW_DIMS]
    axes = table.isel(dict.fromkeys(rest, 0), drop=True)
    own = _read_returns(portfolio_return, axes, "portfolio_return", where)
    other = _read_returns(benchmark_return, axes, "benchmark_return", where)
    _require_sums(table.sum(rest), own - other, where)
    n_dates = table.sizes[DATE]
    p, b = own.to_numpy().reshape(-1, n_dates), other.to_numpy().reshape(-1, n_dates)
    single = table.to_numpy().reshape(len(p), n_dates, -1)
    if method == "frongello":
        linked = _frongello(single, p, b)
    else:
        linked = single * _factors(method, p, b)[..., None]
    by_date = _like(table, linked, "by_date")
    whole = axes.isel({DATE: 0}, drop=True)
    benchmark = np.expm1(np.log1p(b).sum(axis=1))
    active = (1.0 + benchmark) * np.expm1(_log_ratio(p, b).sum(axis=1))
    return LinkedEffects(
        effects=by_date.sum(DATE, keep_attrs=True).rename("effects"),
        by_date=by_date,
        portfolio_return=_like(whole, benchmark + active, "portfolio_return"),
        benchmark_return=_like(whole, benchmark, "benchmark_return"),
        active_return=_like(whole, active, "active_return"),
        method=method,
        n_dates=n_dates,
    )


def link_geometric(stages: xr.DataArray, *, benchmark_return: xr.DataArray) -> GeometricEffects:
    """Return effects that multiply to portfolio over benchmark wealth, by date and compounded.

    The effect of a stage is ``(1 + stage) / (1 + stage before) - 1``, the first after the
    benchmark: allocation ``(1 + b_S) / (1 + r_b) - 1``, selection ``(1 + r_p) / (1 + b_S) - 1``.
    Geometric effects chain over dates as they are: there is nothing to smooth.

    Parameters
    ----------
    stages : DataArray, shape (date, effect)
        Decimal returns of the portfolios on the way from benchmark to account, in order, the last
        the account itself; above -1. Of Brinson attribution: `BrinsonAttribution.stages`.
        Dimensions `sample`, `chain` and `draw` are draws.
    benchmark_return : DataArray, shape (date,), or with the stages' draws
        Above -1.

    Returns
    -------
    GeometricEffects

    Raises
    ------
    ShapeError
        If dimensions or labels do not agree.
    SpecError
        If a value is not finite, a return is -1 or less, or dates do not increase.

    Notes
    -----
    Market specification, section 2.10; Bacon (2008), chapter 8.
    """
    where = "link_geometric"
    table = _read_effects(stages, "stages", where)
    if EFFECT not in table.dims or set(table.dims) - {DATE, EFFECT, *DRAW_DIMS}:
        raise ShapeError(
            f"stages must have the dimensions date and effect; got {tuple(stages.dims)} at "
            f"{where}. Pass returns of whole portfolios, such as BrinsonAttribution.stages."
        )
    _require_wealth(table, "stages", where)
    axes = table.isel({EFFECT: 0}, drop=True)
    first = _read_returns(benchmark_return, axes, "benchmark_return", where).to_numpy()
    values = table.to_numpy()
    before = np.concatenate([first[..., None], values[..., :-1]], axis=-1)
    by_date = (values - before) / (1.0 + before)
    logs = np.log1p(by_date).sum(axis=-2)
    benchmark = np.expm1(np.log1p(first).sum(axis=-1))
    active = np.expm1(logs.sum(axis=-1))
    whole = axes.isel({DATE: 0}, drop=True)
    return GeometricEffects(
        effects=_like(table.isel({DATE: 0}, drop=True), np.expm1(logs), "effects"),
        by_date=_like(table, by_date, "by_date"),
        portfolio_return=_like(whole, benchmark + active * (1.0 + benchmark), "portfolio_return"),
        benchmark_return=_like(whole, benchmark, "benchmark_return"),
        active_return=_like(whole, active, "active_return"),
        n_dates=table.sizes[DATE],
    )


def _like(labels: xr.DataArray, values: np.ndarray, name: str) -> xr.DataArray:
    """Return values with the labels of an array, a name and their unit."""
    found = labels.copy(data=values.reshape(labels.shape)).rename(name)
    found.attrs = dict(_DECIMAL)
    return found


def _log_ratio(p: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return ``ln(1 + r_p) - ln(1 + r_b)`` with the relative accuracy of the difference."""
    found: np.ndarray = np.log1p((p - b) / (1.0 + b))
    return found


def _ratio(above: np.ndarray, below: np.ndarray, limit: np.ndarray | float) -> np.ndarray:
    """Return ``above / below``, and the limit where `below` is 0."""
    known = below != 0.0
    return np.where(known, above / np.where(known, below, 1.0), limit)


def _factors(method: Linker, p: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return what effects of a date are multiplied by, shape (draw, date)."""
    if method == "grap":
        one = np.ones_like(p[:, :1])
        before = np.cumprod(np.hstack([one, 1.0 + p[:, :-1]]), axis=1)
        after = np.cumprod(np.hstack([one, 1.0 + b[:, :0:-1]]), axis=1)[:, ::-1]
        return before * after
    d = p - b
    log_ratio = _log_ratio(p, b)
    total = log_ratio.sum(axis=1, keepdims=True)
    log_wealth = np.log1p(b).sum(axis=1, keepdims=True)
    active = np.exp(log_wealth) * np.expm1(total)
    if method == "carino":
        return _ratio(log_ratio, d, 1.0 / (1.0 + b)) / _ratio(total, active, np.exp(-log_wealth))
    n_dates = p.shape[1]
    share = _ratio(np.expm1(total), n_dates * np.expm1(total / n_dates), 1.0)
    level = np.exp(log_wealth * (n_dates - 1) / n_dates) * share
    missing = active - level * d.sum(axis=1, keepdims=True)
    return level + _ratio(missing * d, (d * d).sum(axis=1, keepdims=True), 0.0)


def _frongello(single: np.ndarray, p: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return linked effects (draw, date, rest): what each date adds to the span so far."""
    linked = np.empty_like(single)
    so_far = np.zeros_like(single[:, 0])
    wealth = np.ones_like(p[:, :1])
    for date in range(p.shape[1]):
        linked[:, date] = single[:, date] * wealth + b[:, [date]] * so_far
        so_far = so_far + linked[:, date]
        wealth = wealth * (1.0 + p[:, [date]])
    return linked


def _read_effects(effects: xr.DataArray, what: str, where: str) -> xr.DataArray:
    """Return the array in float64, draws first, then `date`, then the rest, after a look at it."""
    if not isinstance(effects, xr.DataArray) or DATE not in effects.dims or not effects.size:
        got = dict(effects.sizes) if isinstance(effects, xr.DataArray) else type(effects).__name__
        raise ShapeError(
            f"{what} must be a DataArray with a dimension date and values; got {got} at {where}. "
            "Keep the dates apart."
        )
    ordered = draws_first(effects, what, where)
    _require_finite(ordered, what, where)
    return ordered


def _read_returns(returns: xr.DataArray, axes: xr.DataArray, what: str, where: str) -> xr.DataArray:
    """Return returns over the axes (draws, date), float64, after a look at them."""
    if not isinstance(returns, xr.DataArray) or DATE not in returns.dims:
        got = returns.dims if isinstance(returns, xr.DataArray) else type(returns).__name__
        raise ShapeError(
            f"{what} must be a DataArray over date; got {got} at {where}. Pass one return per date."
        )
    if not set(returns.dims) <= set(axes.dims):
        raise ShapeError(
            f"{what} must be over date and draws of the effects; got {returns.dims} against "
            f"{axes.dims} at {where}. Link effects that have the draws, or pass one return per "
            "date."
        )
    require_same_labels(returns, axes, what, where)
    spread = returns.astype(np.float64).broadcast_like(axes).transpose(*axes.dims)
    _require_finite(spread, what, where)
    _require_wealth(spread, what, where)
    return spread.reset_coords(drop=True)


def _require_finite(array: xr.DataArray, what: str, where: str) -> None:
    """Refuse NaN and infinite values."""
    wrong = ~np.isfinite(array.to_numpy())
    if wrong.any():
        raise SpecError(
            f"{what} must be finite; got NaN or infinite ones on {name_dates(wrong, array)} at "
            f"{where}. Drop the dates, or find what is missing."
        )


def _require_wealth(returns: xr.DataArray, what: str, where: str) -> None:
    """Refuse returns that leave nothing to compound."""
    values = returns.to_numpy()
    wrong = values <= -1.0
    if wrong.any():
        raise SpecError(
            f"{what} must be above -1; got {values[wrong][0]:.6g} on "
            f"{name_dates(wrong, returns)} at {where}. Nothing compounds after a total loss: end "
            "the span before it."
        )


def _require_sums(sums: xr.DataArray, active: xr.DataArray, where: str) -> None:
    """Refuse effects that do not add up to the active return of their date."""
    gap = np.abs(sums.to_numpy() - active.to_numpy())
    wrong = gap > SUM_TOLERANCE
    if wrong.any():
        raise SpecError(
            f"effects of a date must sum to portfolio minus benchmark return within "
            f"{SUM_TOLERANCE:g}; got a gap of up to {gap.max():.3g} on "
            f"{name_dates(wrong, active)} at {where}. Add the residual as an effect of its own, "
            "and work in float64."
        )
