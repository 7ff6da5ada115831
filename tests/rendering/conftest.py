"""A made-up `ReportContents` of any size, with the shapes and units of a real one."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from nfi_pyro.diagnostics.results import Calibration, InformationCoefficient, ScoreTable
from nfi_pyro.portfolio.results import PortfolioRisk
from nfi_pyro.rendering import ReportContents, render_report

AWKWARD = ("<script>alert(1)</script>", "A&B $x$", 'quote" onload="x')


def make_contents(
    *,
    n_assets=20,
    n_factors=4,
    n_dates=500,
    n_epochs=25,
    n_steps=1500,
    seed=0,
    nan_share=0.0,
    kind="factor_vae",
) -> ReportContents:
    """Return contents drawn with `seed`; `nan_share` of most arrays is missing.

    `kind` is ``factor_vae`` (factors, no law of exposure), ``factors`` (with one), ``linear``
    (given exposures, the first of which is the market) or ``copula`` (no factors).
    """
    rng = np.random.default_rng(seed)
    dates = pd.bdate_range("2021-01-04", periods=n_dates).values
    assets = [*AWKWARD, *(f"S{i:04d}" for i in range(n_assets - len(AWKWARD)))]
    factors = [f"factor {k}" for k in range(n_factors)]
    if kind in ("linear", "copula"):
        factors = ["market", *(f"STYLE_{k:02d}" for k in range(n_factors - 1))]
    # What is drawn for one kind alone has a generator of its own.
    own = np.random.default_rng(seed + 1)
    columns = {"linear": slice(0, 1), "copula": slice(0, 0)}.get(kind, slice(None))

    def holed(values):
        return np.where(rng.random(np.shape(values)) < nan_share, np.nan, values)

    return ReportContents(
        title="Risk report: factor_vae & <friends>",
        provenance=_provenance(),
        ledger=pd.DataFrame(
            {
                "rule": ["price above zero", "no jump > 80%"],
                "count": [3, 17],
                "action": ["row dropped", "flagged & kept"],
                "places": ["S0001 2021-03-04", "<b>S0002</b> and 16 more"],
            }
        ),
        coverage=_coverage(dates, n_assets),
        history=_history(rng, holed, factors, n_epochs, n_steps).isel(factor=columns),
        evaluation_span="2021-01-04 to 2022-12-02, after the last training label: not seen",
        information_coefficient=_rank_ic(rng, holed, dates, n_assets),
        calibration=_calibration(rng, holed, dates, assets),
        scores=_scores(rng, dates, n_assets),
        factors=None if kind == "copula" else _factors(rng, holed, dates, factors),
        exposures=xr.DataArray(
            holed(rng.normal(size=(n_assets, n_factors))),
            coords={"asset": assets, "factor": factors},
            dims=("asset", "factor"),
        ),
        exposures_are_given=kind in ("linear", "copula"),
        copula_loading=_copula(own, assets, factors) if kind == "copula" else None,
        pricing=None if kind == "factor_vae" else _pricing(own, assets, factors, kind),
        risks=_risks(rng, assets),
        portfolio=_portfolio(rng, dates, assets, factors),
        portfolio_name="equal weight",
        label="Simple return from the close of t+1 to the close of t+2, decimal",
    )


def _copula(rng, assets, columns):
    loading = 0.08 * rng.normal(size=(len(assets), len(columns)))
    loading[:, 0] = 0.5
    return xr.DataArray(loading, {"asset": assets, "column": columns}, ("asset", "column"))


def _pricing(rng, assets, factors, kind):
    """Return prices that are linear in exposure: ``g_i = m + H beta_i``, H = 0 for ``linear``."""
    names = factors if kind == "factors" else factors[1:]
    beta = rng.normal(size=(len(assets), len(names)))
    common = np.zeros(len(names)) if kind == "copula" else 0.0003 * rng.normal(size=len(names))
    bend = 0.0002 * rng.normal(size=(len(names), len(names)))
    hessian = np.zeros_like(bend) if kind == "linear" else 0.5 * (bend + bend.T)
    cell = ("asset", "factor")
    shape = (len(assets), *hessian.shape)
    return xr.Dataset(
        {
            "mean": ("asset", beta @ common + 0.5 * ((beta @ hessian) * beta).sum(1)),
            "jacobian": (cell, common + beta @ hessian),
            "hessian": ((*cell, "factor_other"), np.broadcast_to(hessian, shape)),
            "beta": (cell, beta),
            "price_of_risk": ("factor", common),
        },
        coords={"asset": assets, "factor": names, "factor_other": names},
    )


def _provenance():
    return {
        "Data": {
            "source": "simulated prices, survivors only: survivorship bias",
            "assets": "20",
            "dates": "2018-01-02 to 2022-12-02",
        },
        "Splits": {"training": "2018 to 2019", "validation": "2020", "test": "2021 to 2022"},
        "Label": {"start lag": "1 trading day", "horizon": "1 trading day", "unit": "decimal"},
        "Model": {"name": "factor_vae", "factors": "4", "hidden": "32"},
        "Versions": {"nfi_pyro": "0.1.0", "torch": "2.13.0"},
    }


def _coverage(dates, n_assets):
    n = len(dates)
    listed = np.full(n, n_assets)
    tradable = listed - (np.arange(n) % 7 == 0)
    entered = np.where(np.arange(n) < 20, 0, tradable - 2)
    variables = {"listed": listed, "tradable": tradable, "entered": entered}
    return xr.Dataset({k: ("date", v) for k, v in variables.items()}, coords={"date": dates})


def _history(rng, holed, factors, n_epochs, n_steps):
    step = np.arange(1, n_steps + 1)
    rise = 1.0 - np.exp(-step / max(n_steps / 8, 1))
    scale = np.linspace(0.2, 3.0, len(factors))
    noise = rng.normal(size=(n_steps, len(factors)))
    epoch = np.arange(1, n_epochs + 1)
    hump = np.exp(-(((epoch - 0.7 * n_epochs) / max(n_epochs, 1)) ** 2))
    return xr.Dataset(
        {
            "elbo": ("step", holed(-1.9 + 0.6 * rise + 0.05 * rng.normal(size=n_steps))),
            "gradient_norm": ("step", np.exp(rng.normal(size=n_steps))),
            "learning_rate": ("step", 1e-3 * np.cos(step / n_steps * 1.4)),
            "kl": (("step", "factor"), np.abs(scale * rise[:, None] + 0.05 * noise)),
            "validation_log_score": ("epoch", -1.5 + 0.2 * hump + 0.01 * rng.normal(size=n_epochs)),
            "validation_rank_ic": ("epoch", 0.05 * hump + 0.01 * rng.normal(size=n_epochs)),
            "last_step": ("epoch", np.linspace(1, n_steps, n_epochs).astype(int)),
        },
        coords={"step": step, "factor": factors, "epoch": epoch},
        attrs={"best_epoch": max(1, int(0.7 * n_epochs))},
    )


def _rank_ic(rng, holed, dates, n_assets):
    daily = holed(0.03 + 0.15 * rng.normal(size=len(dates)))
    ok = daily[np.isfinite(daily)]
    mean = float(ok.mean()) if ok.size else np.nan
    deviation = float(ok.std(ddof=1)) if ok.size > 1 else np.nan
    error = deviation / np.sqrt(max(ok.size, 1))
    return InformationCoefficient(
        rank_ic=xr.DataArray(daily, coords={"date": dates}, dims="date"),
        n_assets=xr.DataArray(np.full(len(dates), n_assets), coords={"date": dates}, dims="date"),
        mean=mean,
        standard_error=error,
        interval=(mean - 1.96 * error, mean + 1.96 * error),
        icir=mean / deviation,
        n_lags=5,
        n_dates=ok.size,
        n_skipped=len(dates) - ok.size,
    )


def _calibration(rng, holed, dates, assets):
    pit = holed(rng.beta(0.9, 0.9, size=(len(dates), len(assets))))
    ok = pit[np.isfinite(pit)]
    edges = np.linspace(0, 1, 21)
    density = np.histogram(ok, edges, density=True)[0] if ok.size else np.full(20, np.nan)
    levels = np.array([0.5, 0.8, 0.9, 0.95, 0.99])
    share = [np.mean(np.abs(ok - 0.5) < q / 2) if ok.size else np.nan for q in levels]
    bins = {"bin": (edges[1:] + edges[:-1]) / 2}
    bands = {
        "observed": ("level", np.array(share)),
        "lower": ("level", np.array(share) - 0.012),
        "upper": ("level", np.array(share) + 0.012),
    }
    return Calibration(
        pit=xr.DataArray(pit, coords={"date": dates, "asset": assets}, dims=("date", "asset")),
        histogram=xr.DataArray(density, coords=bins, dims="bin"),
        histogram_lower=xr.DataArray(density - 0.09, coords=bins, dims="bin"),
        histogram_upper=xr.DataArray(density + 0.09, coords=bins, dims="bin"),
        coverage=xr.Dataset(bands, coords={"nominal": ("level", levels)}),
        n_observations=ok.size,
    )


def _scores(rng, dates, n_assets):
    names = ["factor_vae", "Gaussian, 60-day sd", "market model"]
    table = {
        "log_score": [-1.31, -1.35, -1.312],
        "crps": [0.0102, 0.0106, 0.0102],
        "log_score_difference": [0.0, -0.04, -0.002],
        "difference_standard_error": [0.0, 0.008, 0.006],
    }
    by_date = -1.3 + 0.1 * rng.normal(size=(3, len(dates)))
    assets = [f"A{place}" for place in range(n_assets)]
    cells = {"date": dates, "asset": assets}
    return ScoreTable(
        table=xr.Dataset(
            {k: ("forecast", np.array(v)) for k, v in table.items()}, coords={"forecast": names}
        ),
        by_date=xr.DataArray(
            by_date, coords={"forecast": names, "date": dates}, dims=("forecast", "date")
        ),
        crps_by_date=xr.DataArray(
            0.0 * by_date, coords={"forecast": names, "date": dates}, dims=("forecast", "date")
        ),
        scored=xr.DataArray(np.ones((len(dates), n_assets), bool), cells, ("date", "asset")),
        n_observations=len(dates) * n_assets,
    )


def _factors(rng, holed, dates, factors):
    shape = (len(dates), len(factors))
    prior = 0.0004 * rng.normal(size=shape)
    scale = np.full(shape, 0.008) * (1 + 0.5 * np.sin(np.arange(len(dates)) / 60))[:, None]
    posterior = holed(prior + scale * rng.normal(size=shape) * np.linspace(0.3, 1.0, shape[1]))
    variables = {
        "prior_loc": prior,
        "prior_scale": scale,
        "posterior_loc": posterior,
        "posterior_scale": 0.4 * scale,
    }
    return xr.Dataset(
        {k: (("date", "factor"), v) for k, v in variables.items()},
        coords={"date": dates, "factor": factors},
    )


def _risks(rng, assets):
    deviation = np.sort(0.012 + 0.02 * rng.random(len(assets)))[::-1]
    columns = {
        "mean": 0.0005 * rng.normal(size=len(assets)),
        "standard_deviation": deviation,
        "specific_share": 0.3 + 0.6 * rng.random(len(assets)),
        "value_at_risk_95": 1.645 * deviation,
        "value_at_risk_99": 2.326 * deviation,
        "expected_shortfall_95": 2.063 * deviation,
        "expected_shortfall_99": 2.665 * deviation,
    }
    return pd.DataFrame(columns, index=pd.Index(assets, name="asset"))


def _portfolio(rng, dates, assets, factors):
    share = rng.random(len(factors) + 1)
    share[0] = -0.03
    deviation = 0.0111
    contribution = deviation * share / share.sum()
    specific = float(contribution[-1] * deviation)
    level = {"level": [0.95, 0.99]}
    return PortfolioRisk(
        date=dates[-1],
        weights=xr.DataArray(
            np.full(len(assets), 1 / len(assets)), coords={"asset": assets}, dims="asset"
        ),
        mean=0.0002,
        standard_deviation=deviation,
        factor_variance=deviation**2 - specific,
        specific_variance=specific,
        value_at_risk=xr.DataArray([0.01806, 0.02562], coords=level, dims="level"),
        expected_shortfall=xr.DataArray([0.0227, 0.0294], coords=level, dims="level"),
        standard_error=xr.DataArray(
            [[0.0, 0.0], [0.0, 0.0]],
            coords={"measure": ["value_at_risk", "expected_shortfall"], **level},
            dims=("measure", "level"),
        ),
        asset_contribution=xr.DataArray(
            np.full(len(assets), deviation / len(assets)), coords={"asset": assets}, dims="asset"
        ),
        factor_contribution=xr.DataArray(
            contribution, coords={"source": [*factors, "specific"]}, dims="source"
        ),
        method="closed form",
    )


@pytest.fixture(scope="session", name="make_contents")
def _make_contents():
    return make_contents


@pytest.fixture(scope="session")
def contents():
    return make_contents()


@pytest.fixture(scope="session")
def small():
    return make_contents(n_assets=11, n_factors=2, n_dates=61, n_epochs=3, n_steps=53)


@pytest.fixture(scope="session")
def large_contents():
    return make_contents(
        n_assets=300, n_factors=16, n_dates=2600, n_steps=20_000, nan_share=0.1, seed=1
    )


@pytest.fixture(scope="session")
def page(contents):
    return render_report(contents)


@pytest.fixture(scope="session")
def large_page(large_contents):
    return render_report(large_contents)
