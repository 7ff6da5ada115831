"""Barra CNE5 style exposures: those that bars can give, and why the others are missing."""

import json

import numpy as np
import xarray as xr

from nfi_pyro.data.checks.quality import LEDGER_ATTRIBUTE, DropLedger
from nfi_pyro.data.features.rolling import FloatArray
from nfi_pyro.data.features.style_descriptors import WINDOWS, compute_descriptors
from nfi_pyro.data.features.style_inputs import StyleInputs, check_inputs
from nfi_pyro.data.features.style_scores import (
    CUT,
    LEAST_ASSETS,
    combine,
    cut_off,
    free_of,
    standardise,
)
from nfi_pyro.dims import ASSET, DATE, FACTOR
from nfi_pyro.errors import PanelError

DESCRIPTOR_WEIGHTS: dict[str, dict[str, float]] = {
    "beta": {"BETA": 1.0},
    "momentum": {"RSTR": 1.0},
    "size": {"LNCAP": 1.0},
    "nonlinear_size": {"NLSIZE": 1.0},
    "residual_volatility": {"DASTD": 0.74, "CMRA": 0.16, "HSIGMA": 0.10},
    "liquidity": {"STOM": 0.35, "STOQ": 0.35, "STOA": 0.30},
    "book_to_price": {"BTOP": 1.0},
    "earnings_yield": {"EPFWD": 0.68, "CETOP": 0.21, "ETOP": 0.11},
    "growth": {"SGRO": 0.47, "EGRO": 0.24, "EGRLF": 0.18, "EGRSF": 0.11},
    "leverage": {"MLEV": 0.38, "DTOA": 0.35, "BLEV": 0.27},
}
"""Style to the weights of its descriptors, as published for CNE5 (MSCI, July 2012)."""

BARRA_STYLES: tuple[str, ...] = tuple(DESCRIPTOR_WEIGHTS)
"""The ten styles of CNE5."""

_NEEDS = {
    "size": "needs market_cap, which the bars do not have",
    "nonlinear_size": "needs market_cap, which the bars do not have",
    "liquidity": "needs turnover, or volume and float_shares, which the bars do not have",
    "book_to_price": "needs book equity: bars hold no fundamentals",
    "earnings_yield": "needs earnings, cash earnings and analysts' forecasts: bars hold none",
    "growth": "needs five years of sales and earnings and analysts' forecasts: bars hold none",
    "leverage": "needs debt, preferred and book equity and assets: bars hold no fundamentals",
}


def barra_styles(
    bars: xr.Dataset,
    *,
    market_cap: xr.DataArray | None = None,
    float_shares: xr.DataArray | None = None,
    turnover: xr.DataArray | None = None,
    risk_free: xr.DataArray | None = None,
    universe: xr.DataArray | None = None,
    min_periods: float = 0.5,
) -> xr.Dataset:
    """Return standardised exposures to the Barra styles, known at the close of each date.

    Beta, momentum and residual volatility need prices alone; size and nonlinear size
    `market_cap`; liquidity `turnover`, or ``volume`` and `float_shares`. The other four styles
    need fundamentals and are listed as missing. Descriptors: see `compute_descriptors`; weights:
    `DESCRIPTOR_WEIGHTS`.

    Every date, over the members of the cross-section: descriptors are cut off 3 standard
    deviations from their mean and standardised; a style is the weighted mean of its known
    descriptors, their weights renormalised, standardised again. Nonlinear size is the cube of
    size less its regression on size, cut off and standardised. Residual volatility is less its
    regression on beta, and on size where there is one; it is not cut off again, which would undo
    that. These regressions have an intercept and weigh by the root of market capitalisation.
    Standardised means: capitalisation-weighted mean 0, equal-weighted standard deviation 1
    (ddof 0). Without market capitalisation all weights are equal, and flagged.

    Parameters
    ----------
    bars : Dataset, dims (date, asset)
        ``close``, adjusted, > 0; NaN = no trade. May hold ``volume``, ``market_cap``,
        ``float_shares`` and ``turnover``; what is given beside it goes first.
    market_cap : DataArray, shape (date, asset), optional
        > 0, any unit that all share; NaN = unknown.
    float_shares : DataArray, shape (date, asset), optional
        > 0, in the shares, or lots, that ``volume`` counts.
    turnover : DataArray, shape (date, asset), optional
        Share of the float that changed hands, >= 0, as a decimal or percent: its unit drops out.
    risk_free : DataArray, shape (date,), optional
        Decimal return from the close before to the close of the date. Default: 0.
    universe : DataArray of bool, shape (date, asset), optional
        Members of the cross-section, decided with what is known at the close; others count
        nowhere, but in their own history, and get NaN. Default: assets with a close on the date,
        so that a suspended asset has no exposure.
    min_periods : float
        Least share of a window that must be known, in (0, 1]; half by default. Windows are 252
        rows (beta, residual volatility), 505 rows from lag 21 on (momentum), and 21, 63 and 252
        (liquidity). Unknown rows are left out and weights renormalised: with 0.5, beta begins
        after 126 returns and momentum after 253 and 21.

    Returns
    -------
    Dataset
        `exposures` (date, asset, factor), float64, dimensionless, over the styles that have any
        value, named as in `BARRA_STYLES`; NaN where unknown. `coverage` (date, asset, factor):
        share of the style's descriptor weights that was known, above 0 up to 1; NaN where there
        is no exposure. `cmra_fallback` (date, asset): whether CMRA is Zmax - Zmin.
        `cap_weighted` (date,): whether weights are capitalisations. Attributes:
        ``styles_unavailable`` (JSON, style to reason; with the factors, all ten), ``ledger`` (JSON
        of a `DropLedger`: cells cut off, left out or without weight), ``market_weights``,
        ``risk_free``, ``turnover``, ``min_periods``, ``timing``.

    Raises
    ------
    PanelError
        When the bars lack a close, a value is out of range, or no style can be computed.
    ShapeError
        When dimensions or labels are not those of the bars.
    SpecError
        When `min_periods` is out of range.

    Notes
    -----
    Source: MSCI, CNE5 Descriptor Details, July 2012. Between neighbouring rows without a close the
    last one is carried for the cumulative descriptors (RSTR, CMRA), which so hold the whole move
    of a suspension; BETA, DASTD and HSIGMA use returns of one row alone. Where the source is
    silent: standard deviations are not corrected for degrees of freedom, and the regressions of
    orthogonalisation have an intercept. Its factor return regressions, also with industries, are
    `nfi_pyro.linear_factor.cross_sectional_regression`, to which `exposures` go as they are.
    """
    inputs = check_inputs(
        bars,
        market_cap=market_cap,
        float_shares=float_shares,
        turnover=turnover,
        risk_free=risk_free,
        universe=universe,
        min_periods=min_periods,
    )
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        raw = compute_descriptors(inputs)
        scores = _Scores(inputs, raw)
    computed = {n: v for n, v in scores.styles.items() if np.isfinite(v).any()}
    unavailable = _reasons(inputs, scores, set(computed))
    if not computed:
        raise PanelError(
            f"bars must allow some style; got none in {len(inputs.priced)} dates and "
            f"{inputs.priced.shape[1]} assets: beta {unavailable['beta']}. Give a longer history "
            "or lower min_periods."
        )
    return _dataset(inputs, scores, computed, unavailable, raw["cmra_fallback"])


class _Scores:
    """Styles as they come to be, with what was cut off and left out on the way."""

    def __init__(self, inputs: StyleInputs, raw: dict[str, FloatArray]) -> None:
        self.inputs = inputs
        self.styles: dict[str, FloatArray] = {}
        self.coverage: dict[str, FloatArray] = {}
        self.n_cut: dict[str, int] = {}
        self.n_thin: dict[str, int] = {}
        self.n_untraded = 0
        if "STOM" in raw and inputs.turnover is not None:
            still = inputs.member & (inputs.turnover == 0.0) & ~np.isfinite(raw["STOM"])
            self.n_untraded = int(still.sum())
        for style in ("beta", "momentum", "size", "residual_volatility", "liquidity"):
            shares = DESCRIPTOR_WEIGHTS[style]
            if set(shares) <= set(raw):
                parts = {name: self._descriptor(name, raw[name]) for name in shares}
                values, self.coverage[style] = combine(parts, shares)
                self.styles[style] = standardise(values, inputs.weights)
        self._free()

    def _descriptor(self, name: str, values: FloatArray) -> FloatArray:
        inside = np.where(self.inputs.member, values, np.nan)
        cut, moved = cut_off(inside)
        scores = standardise(cut, self.inputs.weights)
        self.n_cut[name] = int((moved & np.isfinite(scores)).sum())
        thin = np.isfinite(inside).any(axis=1) & ~np.isfinite(scores).any(axis=1)
        self.n_thin[name] = int(thin.sum())
        return scores

    def _free(self) -> None:
        """Free nonlinear size of size, and residual volatility of beta and size."""
        weights = np.sqrt(self.inputs.weights)
        size = self.styles.get("size")
        if size is not None:
            cube = free_of(size**3, [size], weights)
            self.styles["nonlinear_size"] = self._descriptor("NLSIZE", cube)
            self.coverage["nonlinear_size"] = self.coverage["size"]
        others = [self.styles["beta"]] + ([] if size is None else [size])
        left = free_of(self.styles["residual_volatility"], others, weights)
        self.styles["residual_volatility"] = standardise(left, self.inputs.weights)


def _reasons(inputs: StyleInputs, scores: _Scores, computed: set[str]) -> dict[str, str]:
    """Return why each style that is not computed is not, in the order of the ten."""
    reasons = {}
    for style in BARRA_STYLES:
        if style in computed:
            continue
        if style not in scores.styles:
            reasons[style] = _NEEDS[style]
            continue
        rows = min((WINDOWS[d] for d in DESCRIPTOR_WEIGHTS[style] if d in WINDOWS), default=1)
        lag = " from lag 21 on" if style == "momentum" else ""
        reasons[style] = (
            f"needs {LEAST_ASSETS} assets that differ, each with {inputs.least(rows)} known of "
            f"{rows} rows{lag}, on one date: the {len(inputs.priced)} dates hold none"
        )
    return reasons


def _ledger(inputs: StyleInputs, scores: _Scores, computed: dict[str, FloatArray]) -> DropLedger:
    ledger = DropLedger()

    def by_name(counts: dict[str, int]) -> tuple[int, list[str]]:
        worst = sorted(counts.items(), key=lambda item: -item[1])
        return sum(counts.values()), [f"{name} {count:,}" for name, count in worst if count]

    count, names = by_name(scores.n_cut)
    rule = f"descriptors beyond {CUT:g} standard deviations of their date"
    ledger = ledger.add(rule, count, "set to the bound", names)
    count, names = by_name(scores.n_thin)
    rule = f"cross-sections of a descriptor below {LEAST_ASSETS} assets or without spread"
    ledger = ledger.add(rule, count, "NaN", names)
    missing = {n: int((inputs.member & ~np.isfinite(v)).sum()) for n, v in computed.items()}
    count, names = by_name(missing)
    ledger = ledger.add("members without an exposure", count, "NaN", names)
    ledger = ledger.add("members that traded nothing", scores.n_untraded, "no STOM")
    if inputs.market_cap is not None:
        unknown = inputs.member & np.isnan(inputs.market_cap) & inputs.cap_weighted[:, None]
        rule = "members without market_cap on a date with some"
        ledger = ledger.add(rule, int(unknown.sum()), "no weight, no size")
        bare = inputs.member.any(axis=1) & ~inputs.cap_weighted
        ledger = ledger.add("dates without any market_cap", int(bare.sum()), "equal weights")
        free = np.isfinite(scores.styles["residual_volatility"]).any(axis=1)
        alone = free & ~np.isfinite(scores.styles["size"]).any(axis=1)
        rule = "dates of residual volatility without size"
        ledger = ledger.add(rule, int(alone.sum()), "orthogonal to beta alone")
    return ledger


def _dataset(
    inputs: StyleInputs,
    scores: _Scores,
    computed: dict[str, FloatArray],
    unavailable: dict[str, str],
    fallback: np.ndarray,
) -> xr.Dataset:
    names = [style for style in BARRA_STYLES if style in computed]
    exposures = np.stack([computed[name] for name in names], axis=-1)
    coverage = np.stack([scores.coverage[name] for name in names], axis=-1)
    coverage[np.isnan(exposures)] = np.nan
    flagged = fallback & inputs.member
    rule = "members with 1 + Zmin <= 0, where CMRA has no logarithm"
    ledger = _ledger(inputs, scores, computed).add(rule, int(flagged.sum()), "Zmax - Zmin, flagged")
    cells, by_style = (DATE, ASSET), (DATE, ASSET, FACTOR)
    timing = "known at the close of date"
    return xr.Dataset(
        {
            "exposures": (by_style, exposures, {"units": "1", "timing": timing}),
            "coverage": (by_style, coverage, {"units": "1"}),
            "cmra_fallback": (cells, flagged),
            "cap_weighted": (DATE, inputs.cap_weighted),
        },
        coords={DATE: inputs.dates, ASSET: inputs.assets, FACTOR: np.array(names, dtype=object)},
        attrs={
            "styles_unavailable": json.dumps(unavailable),
            LEDGER_ATTRIBUTE: ledger.to_json(),
            "min_periods": inputs.min_periods,
            "timing": timing,
            **inputs.attributes,
        },
    )
