"""Made-up `AttributionContents` of any size, whose parts add up as those of real results do."""

import numpy as np
import pandas as pd
import xarray as xr

from nfi_pyro.attribution.results.brinson import BrinsonAttribution, LinkedEffects
from nfi_pyro.attribution.results.contributions import RiskContributions, SharpeContributions
from nfi_pyro.attribution.results.coupling import MinedCouplings
from nfi_pyro.attribution.results.explanations import (
    FactorHeatMap,
    FeatureAttribution,
    FeatureRelevance,
    HeatMapSanity,
)
from nfi_pyro.attribution.results.hedge import FactorHedge
from nfi_pyro.attribution.results.realised import RealisedAttribution
from nfi_pyro.attribution.results.styles import StyleReport
from nfi_pyro.data.checks.quality import DropLedger
from nfi_pyro.rendering import AttributionContents

ATTACK = "<script>alert(1)</script>"
MEASURES = ["standard_deviation", "value_at_risk", "expected_shortfall"]
DECIMAL = {"units": "decimal return"}


def make_attribution(
    *,
    n_factors: int = 5,
    n_features: int = 7,
    n_lags: int = 3,
    n_dates: int = 11,
    n_assets: int = 13,
    n_groups: int = 3,
    seed: int = 0,
) -> AttributionContents:
    """Return contents with every part, one fit, and intervals of the prices."""
    rng = np.random.default_rng(seed)
    dates = pd.bdate_range("2024-01-02", periods=n_dates).values
    factors = [ATTACK, "A&B $x$", *(f"STYLE_{k:02d}" for k in range(n_factors - 2))]
    prices = make_slopes(rng, dates, factors, scale=4e-4)
    last = prices.isel(date=-1)
    return AttributionContents(
        title=f"Attribution: nfi on {ATTACK}",
        provenance={"Model": {"model": "nfi", "factors": str(n_factors)}},
        settings={"seed": "0", "dates": str(n_dates)},
        label="simple return from the close of t+1 to the close of t+2, decimal",
        evaluation_span="validation dates, not trained on",
        book=f"book {ATTACK}",
        benchmark="the equal-weight book",
        interval_about="Intervals are of 5 restarts: they are no posterior.",
        left_out={},
        prices=prices,
        risk_slopes=make_slopes(rng, dates, factors, scale=2e-4, level=0.011),
        taylor=make_taylor(rng, factors, float(last["value"]), str(dates[-1])[:10]),
        risk=make_risk(rng, dates[-1], factors, n_assets),
        sharpe=make_sharpe(rng, dates[-1], factors, n_assets),
        heat_mean=make_heat(rng, dates, factors, "mean"),
        heat_risk=make_heat(rng, dates, factors, "standard_deviation"),
        sanity=make_sanity(rng),
        features=make_features(rng, dates[-min(n_dates, 12) :], n_lags, n_features),
        relevance=make_relevance(rng, dates[-min(n_dates, 12) :], n_lags, n_features),
        couplings=make_couplings(rng, factors),
        realised=make_realised(rng, dates, factors),
        **make_brinson(rng, dates, n_groups),
        hedge=make_hedge(rng, dates[-1:], factors),
        styles=make_styles(rng, dates),
    )


def make_slopes(rng, dates, factors, *, scale, level=6e-4) -> xr.Dataset:
    """Return slopes of a book on exposures whose scales differ by a factor of 100."""
    unit = np.geomspace(0.1, 10.0, len(factors))
    shape = (len(dates), len(factors))
    walk = np.cumsum(rng.normal(size=shape), axis=0) / np.sqrt(len(dates))
    exposure = unit * (rng.normal(size=len(factors)) + 0.2 * rng.normal(size=shape))
    gradient = scale * (walk + rng.normal(size=len(factors))) / unit
    bend = 0.3 * scale * rng.normal(size=(len(factors),) * 2) / np.outer(unit, unit)
    bend = np.triu(bend) + np.triu(bend, 1).T
    value = level + 3e-4 * np.sin(np.arange(len(dates)) / 9)
    cell, other = ("date", "factor"), ("date", "factor", "factor_other")
    return xr.Dataset(
        {
            "value": ("date", value, DECIMAL),
            "value_lower": ("date", value - 2e-4),
            "value_upper": ("date", value + 2e-4),
            "exposure": (cell, exposure),
            "gradient": (cell, gradient),
            "gradient_lower": (cell, gradient - 0.5 * scale / unit),
            "gradient_upper": (cell, gradient + 0.5 * scale / unit),
            "contribution": (cell, exposure * gradient),
            "hessian": (other, np.broadcast_to(bend, (len(dates), *bend.shape))),
            "uncovered": ("date", np.where(np.arange(len(dates)) % 5 == 0, 0.02, 0.0)),
        },
        {"date": dates, "factor": factors, "factor_other": factors},
        {"shift": "parallel", "target": "mean"},
    )


def make_taylor(rng, factors, value, date) -> xr.Dataset:
    """Return parts that add up to the value."""
    linear, quadratic, cross = (size * rng.normal(size=len(factors)) for size in (2e-4, 4e-5, 3e-5))
    remainder = 1.7e-5
    base = value - float((linear + quadratic + cross).sum()) - remainder
    return xr.Dataset(
        {
            "base_value": base,
            "value": value,
            "remainder": remainder,
            "linear": ("factor", linear),
            "quadratic": ("factor", quadratic),
            "cross": ("factor", cross),
            "base": ("factor", np.zeros(len(factors))),
        },
        {"factor": factors},
        {"date": date, "base": "the mean exposure of the date's assets"},
    )


def make_risk(rng, date, factors, n_assets) -> RiskContributions:
    """Return contributions whose sums are the measures."""
    sources = [*factors, "specific"]
    assets = [ATTACK, *(f"S{k:04d}" for k in range(n_assets - 1))]
    size = rng.gamma(2.0, size=(n_assets, 1)) * rng.normal(0.5, 1.0, size=len(sources))
    size /= size.sum()
    mean = 1e-5 * rng.normal(size=size.shape)
    table = np.stack(
        [
            np.stack([0.0 * size if k == 0 else -mean, scale * size])
            for k, scale in enumerate((0.0111, 0.0181, 0.0227))
        ]
    )
    coords = {"measure": MEASURES, "part": ["expected", "risk"], "asset": assets, "source": sources}
    contribution = xr.DataArray(table, coords, ("measure", "part", "asset", "source"))
    value = contribution.sum(("part", "asset", "source"))

    def errors(dim):
        wide = np.full((3, contribution.sizes[dim]), 2e-5)
        wide[0] = 0.0
        return xr.DataArray(wide, {"measure": MEASURES, dim: coords[dim]}, ("measure", dim))

    return RiskContributions(
        date=date,
        value=value,
        value_error=xr.DataArray([0.0, 7e-5, 9e-5], {"measure": MEASURES}, ("measure",)),
        contribution=contribution,
        asset_error=errors("asset"),
        source_error=errors("source"),
        level=0.95,
        dependence="factor",
        methods={MEASURES[0]: "closed form"}
        | dict.fromkeys(MEASURES[1:], "50,000 joint draws, a window of 500"),
    )


def make_sharpe(rng, date, factors, n_assets) -> SharpeContributions:
    """Return contributions that add up to the ratio."""
    sources = [*factors, "specific"]
    part = 0.03 * rng.normal(size=len(sources))
    free, deviation = 1e-5, 0.0111
    ratio = float(part.sum()) - free / deviation

    def terms(dim, names, contribution):
        mean, risk = (scale * rng.normal(size=len(names)) for scale in (0.06, 0.04))
        table = {"contribution": contribution, "marginal": mean + risk, "marginal_mean": mean,
                 "marginal_risk": risk}  # fmt: skip
        return xr.Dataset({k: (dim, v) for k, v in table.items()}, {dim: names})

    assets = [f"S{k:04d}" for k in range(n_assets)]
    share = part.sum() * np.full(n_assets, 1.0 / n_assets)
    return SharpeContributions(
        date=date,
        ratio=ratio,
        expected_return=ratio * deviation + free,
        standard_deviation=deviation,
        risk_free=free,
        by_asset=terms("asset", assets, share),
        by_source=terms("source", sources, part).assign(
            exposure=("source", np.r_[rng.normal(size=len(factors)), 1.0])
        ),
        risk_free_contribution=-free / deviation,
    )


def make_heat(rng, dates, factors, target) -> FactorHeatMap:
    """Return a signed map with one date on which nothing has a law."""
    shape = (len(dates), len(factors))
    size = np.geomspace(3.0, 0.1, len(factors))
    walk = size * np.cumsum(rng.normal(size=shape), axis=0) / np.sqrt(len(dates))
    values = (3e-4 if target == "mean" else 1e-4) * (walk + size * rng.normal(size=shape[1]))
    values[1] = np.nan
    coords = {"date": dates, "factor": factors}
    heat = xr.DataArray(values, coords, ("date", "factor"), attrs=DECIMAL)
    return FactorHeatMap(
        heat=heat,
        parts=heat.expand_dims(part=["linear"]).transpose("date", "part", "factor"),
        value=heat.sum("factor", skipna=False),
        uncovered=heat.isnull().all("factor").astype(float),
        target=target,
        rectified=False,
        comparable=True,
    )


def make_sanity(rng) -> HeatMapSanity:
    """Return correlations that fall to a small one."""
    layers = ["network.first", "network.alpha.readout", "predictor.head.loc", "beta",
              "extractor.gru", "extractor.projection"]  # fmt: skip
    values = np.linspace(0.95, 0.07, len(layers))
    found = xr.DataArray(values, {"layer": layers}, ("layer",))
    return HeatMapSanity(found, n_cells=1320, target="mean", seed=0)


def _cells(rng, dates, n_lags, n_features):
    names = [ATTACK, *(f"KBAR_{k:02d}" for k in range(n_features - 1))]
    shape = (len(dates), n_lags, n_features)
    size = np.geomspace(1.0, 0.03, n_features) * np.exp(-np.arange(n_lags) / 4.0)[:, None]
    values = 5e-5 * size * (rng.normal(size=shape[1:]) + rng.normal(size=shape))
    coords = {"date": dates, "lag": np.arange(n_lags), "feature": names}
    return xr.DataArray(values, coords, ("date", "lag", "feature"), attrs=DECIMAL)


def _by_date(values, dates, attrs=None):
    return xr.DataArray(values, {"date": dates}, ("date",), attrs=attrs or {})


def make_features(rng, dates, n_lags, n_features) -> FeatureAttribution:
    """Return attributions that miss the value by a little on every date."""
    cells = _cells(rng, dates, n_lags, n_features)
    total = cells.sum(("lag", "feature")).values
    error = np.linspace(0.001, 0.013, len(dates))
    return FeatureAttribution(
        attribution=cells,
        by_asset=None,
        value=_by_date(total + 2e-4, dates, DECIMAL),
        baseline_value=_by_date(np.full(len(dates), 2e-4), dates, DECIMAL),
        completeness_error=_by_date(error, dates),
        complete=_by_date(error < 0.01, dates),
        nodes=_by_date(np.full(len(dates), 32), dates),
        uncovered=_by_date(np.zeros(len(dates)), dates),
        target="mean",
        baseline="zero",
        prior="moves",
        tolerance=0.01,
    )


def make_relevance(rng, dates, n_lags, n_features) -> FeatureRelevance:
    """Return relevance that adds up to the value with its bias."""
    cells = _cells(rng, dates, n_lags, n_features)
    layers = ["alpha", "price"]
    bias = xr.DataArray(np.full((len(dates), 2), 1e-5), {"date": dates, "layer": layers},
                        ("date", "layer"))  # fmt: skip
    return FeatureRelevance(
        relevance=cells,
        by_asset=None,
        bias=bias,
        bias_share=_by_date(np.full(len(dates), 0.06), dates),
        value=cells.sum(("lag", "feature"), keep_attrs=True) + bias.sum("layer"),
        conservation_error=_by_date(np.full(len(dates), 0.002), dates),
        conserved=_by_date(np.ones(len(dates), bool), dates),
        uncovered=_by_date(np.zeros(len(dates)), dates),
        rule="epsilon, stabiliser 0.01 of the largest output",
        prior="moves",
    )


def make_couplings(rng, factors) -> MinedCouplings:
    """Return every pair: one discovered, the last one not tested."""
    first, second = np.triu_indices(len(factors), 1)
    count = len(first)
    names = [[factors[place] for place in column] for column in (first, second)]
    p = np.r_[0.0005, np.sort(rng.random(count - 2)), np.nan]
    score = 1e-4 * rng.gamma(2.0, size=count)
    slope = np.r_[2e-4, 3e-5 * rng.normal(size=count - 1)]
    followed = np.arange(count) < min(20, count)
    uplift = np.where(followed, 0.002 * rng.normal(size=count), np.nan)
    columns = {
        "score": score, "score_lower": 0.8 * score, "score_upper": 1.2 * score,
        "signed_score": score * rng.choice([-1.0, 1.0], count),
        "h_squared": np.where(followed, rng.random(count), np.nan),
        "slope": np.where(np.isnan(p), np.nan, slope),
        "t_statistic": np.where(np.isnan(p), np.nan, slope / 4e-5), "p_value": p,
        "q_value": np.minimum(p * count / np.arange(1, count + 1), 1.0), "discovered": p < 0.001,
        "ic_uplift": uplift, "ic_uplift_lower": uplift - 0.003, "ic_uplift_upper": uplift + 0.003,
    }  # fmt: skip
    pairs = [f"{one} x {two}" for one, two in zip(*names, strict=True)]
    table = xr.Dataset(
        {name: ("pair", np.asarray(values)) for name, values in columns.items()},
        {"pair": pairs, "first": ("pair", names[0]), "second": ("pair", names[1])},
    )
    days = pd.bdate_range("2024-01-02", periods=31).values
    by_date = xr.DataArray(np.zeros((31, count)), {"date": days, "pair": pairs}, ("date", "pair"))
    return MinedCouplings(
        table=table,
        slope=by_date,
        confirmation=xr.Dataset({"linear_ic": ("date", np.zeros(31)), "ic_uplift": by_date}),
        level=0.1,
        n_permutations=1999,
        n_tested=count - 1,
        n_untested=1,
        n_screened=0,
        n_dates=31,
        n_skipped=2,
        n_overlapping=0,
        n_confirmation_skipped=0,
        interval="95 percent over dates, bootstrap in blocks of 7",
    )


def make_realised(rng, dates, factors) -> RealisedAttribution:
    """Return parts that add up on every date, linked to a made-up compound return."""
    others = ["alpha", "specific", "uncovered", "trading"]
    names = [*factors, *others]
    values = 8e-4 * rng.normal(0.1, 1.0, size=(len(dates), len(names)))
    values[:, -2] = 0.0
    parts = xr.DataArray(values, {"date": dates, "part": names}, ("date", "part"), attrs=DECIMAL)
    total = parts.sum("part")
    linked = 1.01 * parts
    whole = linked.sum("date")
    cell = ("date", "factor")
    factor_return = 1e-3 * rng.normal(size=(len(dates), len(factors)))
    factor_return[0, 0] = np.nan
    none = xr.DataArray(0.0)
    share = _by_date(np.where(np.arange(len(dates)) == 2, 0.04, 0.0), dates)
    return RealisedAttribution(
        parts=parts,
        total=total,
        holdings_return=total,
        factors=xr.Dataset(
            {"exposure": (cell, rng.normal(size=factor_return.shape)),
             "factor_return": (cell, factor_return),
             "standard_error": (cell, np.full(factor_return.shape, 4e-4))},
            {"date": dates, "factor": factors},
        ),
        part_draws=None,
        interval=None,
        linked=LinkedEffects(
            effects=whole, by_date=linked, portfolio_return=whole.sum(), benchmark_return=none,
            active_return=whole.sum(), method="carino", n_dates=len(dates),
        ),
        linked_interval=xr.Dataset(
            {"mean": whole, "lower": whole - 2e-3, "upper": whole + 2e-3}, attrs={"level": 0.9}
        ),
        books=xr.Dataset({"unobserved_share": share, "uncovered_share": 0.5 * share}),
        comparable=True,
        n_unrealised=2,
        method="posterior of the factors, 200 draws",
        start_lag=1,
        horizon=1,
        ledger=DropLedger().add("columns that repeat earlier ones", 1, "dropped", [ATTACK]),
    )  # fmt: skip


def make_brinson(rng, dates, n_groups) -> dict:
    """Return effects by group, and the same linked."""
    groups = [ATTACK, *(f"Industry {k:02d}" for k in range(n_groups - 1))]
    kinds = ["allocation", "selection", "interaction"]
    cell = ("date", "group")
    effects = xr.DataArray(
        2e-4 * rng.normal(0.05, 1.0, size=(len(dates), n_groups, 3)),
        {"date": dates, "group": groups, "effect": kinds},
        ("date", "group", "effect"),
    )
    weight = np.full((len(dates), n_groups), 1.0 / n_groups)
    active = effects.sum(("group", "effect"))
    bench = _by_date(1e-3 * rng.normal(size=len(dates)), dates)
    linked = 1.02 * effects
    whole = linked.sum("date")
    return {
        "brinson": BrinsonAttribution(
            effects=effects,
            groups=xr.Dataset(
                {"portfolio_weight": (cell, weight), "benchmark_weight": (cell, weight)},
                {"date": dates, "group": groups},
            ),
            totals=xr.Dataset({"portfolio_return": bench + active, "benchmark_return": bench,
                               "active_return": active}),
            method="bf",
            interaction="separate",
            unclassified=("S0007",),
        ),
        "linked": LinkedEffects(
            effects=whole, by_date=linked, portfolio_return=0.02 + whole.sum(),
            benchmark_return=xr.DataArray(0.02), active_return=whole.sum(), method="carino",
            n_dates=len(dates),
        ),
    }  # fmt: skip


def make_hedge(rng, dates, factors, regimes=()) -> FactorHedge:
    """Return a hedge of all factors but the last, by regime where there are any."""
    exposure = rng.normal(size=(len(dates), len(factors)))
    cell = {"date": dates, "factor": factors}
    law = {"regime": list(regimes)} if regimes else {}
    front = (len(regimes),) if regimes else ()
    hedge = np.broadcast_to(exposure, (*front, *exposure.shape)).copy()
    hedge[..., -1] = 0.0
    sources = [*factors, "specific"]
    before = np.abs(rng.normal(size=(*front, len(dates), len(sources)))) * 2e-5
    after = before.copy()
    after[..., :-2] = 0.0
    states = {"state": ["before", "after"], "source": sources}
    cells = law | {"date": dates}
    variance = xr.DataArray(
        np.stack([before, after], axis=-2), cells | states, (*cells, "state", "source")
    )
    total = variance.sum("source")
    counts = xr.DataArray([1, *[50] * (len(regimes) - 1)], law, ("regime",)) if regimes else None
    square = xr.DataArray(np.eye(len(factors)), {"factor": factors, "factor_other": factors},
                          ("factor", "factor_other"))  # fmt: skip
    return FactorHedge(
        exposure=xr.DataArray(exposure, cell, ("date", "factor")),
        hedge=xr.DataArray(hedge, law | cell, (*law, "date", "factor")),
        variance=variance,
        standard_deviation=total**0.5,
        r_squared=1.0 - total.sel(state="after", drop=True) / total.sel(state="before", drop=True),
        factor_covariance=square,
        n_dates=counts,
        single_date=None if counts is None else counts == 1,
        n_unlabelled=3 if regimes else 0,
        hedged=tuple(factors[:-1]),
    )


def make_styles(rng, dates) -> StyleReport:
    """Return six styles, one without an exposure, and two that could not be computed."""
    names = ["size", "beta", "momentum", "residual_volatility", "liquidity", "non_linear_size"]
    summary = {
        name: rng.normal(0.0, 0.3, len(names))
        for name in ("correlation_mean", "correlation_ratio", "coefficient_mean", "exposure_mean")
    } | {name: rng.normal(0.0, 2.0, len(names)) for name in ("correlation_t", "coefficient_t")}
    summary["exposure_sd"] = np.full(len(names), 0.1)
    summary["exposure_mean"][-1] = np.nan
    return StyleReport(
        kind="weights",
        by_date=xr.Dataset(),
        regression=xr.Dataset(),
        summary=xr.Dataset(
            {key: ("factor", values) for key, values in summary.items()}, {"factor": names},
            {"n_lags": 5},
        ),
        r_squared_mean=0.23,
        returns=None,
        unavailable={"growth": f"needs earnings {ATTACK}", "leverage": "needs book values"},
        ledger=DropLedger().add("positions without an exposure to a style", 17, "add nothing"),
    )  # fmt: skip
