"""`DiagnosisContents` out of simulated returns and real diagnostics: right, or wrong on purpose."""

from dataclasses import replace

import numpy as np
import pandas as pd
import xarray as xr
from scipy.special import ndtr

from nfi_pyro.diagnostics import (
    arviz_guide,
    backtest_value_at_risk,
    calibrate,
    compare_forecasts,
    fit_recalibration,
    gaussian_crps,
    gaussian_log_score,
    information_coefficient,
    information_coefficient_power,
    judge_collapse,
    judge_convergence,
    judge_importance,
    judge_ranks,
    judge_replicates,
    portfolio_coverage,
    posterior_information_coefficient,
    spread_against_skill,
)
from nfi_pyro.diagnostics.cross_sections import STATISTICS
from nfi_pyro.diagnostics.results import RestartComparison, Verdict
from nfi_pyro.rendering.diagnosis_contents import (
    DiagnosisContents,
    HeadResults,
    InformationResults,
    PortfolioResults,
    Recalibrated,
)

N_DATES, N_ASSETS, N_BOOKS = 101, 13, 4
AWKWARD = "<script>alert(1)</script>"


def make_diagnosis(*, scale: float = 1.0, seed: int = 1, kind: str = "full") -> DiagnosisContents:
    """Return contents whose forecast standard deviation is `scale` times the right one.

    `kind` is ``full``, or ``bare``: a model without factors, random layers and restarts.
    """
    rng = np.random.default_rng(seed)
    dates = pd.bdate_range("2021-01-04", periods=N_DATES).values
    cells = {"date": dates, "asset": [AWKWARD, *(f"S{k}" for k in range(N_ASSETS - 1))]}
    right = 0.02 * np.exp(
        0.3 * rng.normal(size=(1, N_ASSETS)) + 0.2 * rng.normal(size=(N_DATES, 1))
    )
    returns = xr.DataArray(right * rng.normal(size=right.shape), cells, ("date", "asset"))
    deviation = xr.DataArray(scale * right, cells, ("date", "asset"))
    mean = xr.zeros_like(returns) + 1e-4 * rng.normal(size=right.shape)
    pit = (returns / deviation).copy(data=ndtr((returns / deviation).values))
    skill = information_coefficient(mean, returns, horizon=1)
    contents = DiagnosisContents(
        title=f"Diagnosis: {AWKWARD}",
        provenance={"Data": {"source": AWKWARD, "assets": str(N_ASSETS)}},
        settings={"seed": "0", "draws for importance weights": "1,000 a date"},
        label="Simple return from the close of t+1 to the close of t+2, decimal",
        unit="%",
        evaluation_span="validation dates 2021-01-04 to 2021-05-24",
        thinning="Expensive parts are of all 101 dates of the span.",
        visited="all 101 validation dates",
        left_out={},
        history=_history(rng),
        convergence=None,
        collapse=_collapse(rng, dates),
        importance=(_importance(rng, dates, "posterior", 0.05),
                    _importance(rng, dates, "encoder", 2.5)),
        simulations=(_simulation(rng, dates, "posterior", 1.0),
                     _simulation(rng, dates, "encoder", 0.5)),
        calibration=calibrate(pit),
        recalibrated=_recalibrated(rng, scale, pit),
        portfolios=_portfolios(rng, dates, scale),
        spread_skill=spread_against_skill(deviation, returns - mean),
        predictive=_predictive(rng, dates, scale),
        information_coefficient=skill,
        information=_information(skill.rank_ic),
        scores=_scores(returns, mean, deviation, right),
        heads=_heads(rng),
        restarts=_restarts(rng, dates),
        arviz=arviz_guide(),
    )  # fmt: skip
    contents = replace(contents, convergence=judge_convergence(contents.history))
    return contents if kind == "full" else _bare(contents)


def _bare(contents: DiagnosisContents) -> DiagnosisContents:
    """Return the contents of a model that has nothing but a forecast of single assets."""
    left_out = {
        "collapse": "no latent factor",
        "importance": "no latent factor",
        "simulation": "no latent factor",
        "portfolios": "no dependence",
        "value-at-risk": "no dependence",
        "predictive": "no latent factor",
        "information": "too few dates",
        "heads": "point estimates",
        "restarts": "one fit",
        "training": "no epoch",
    }
    return replace(
        contents, left_out=left_out, convergence=None, collapse=None, importance=(),
        simulations=(), recalibrated=None, portfolios=None, predictive=None, information=None,
        heads=None, restarts=None,
    )  # fmt: skip


def _history(rng: np.random.Generator) -> xr.Dataset:
    n_epochs, per_epoch = 12, 30
    step = np.arange(1, n_epochs * per_epoch + 1)
    epoch = np.arange(1, n_epochs + 1)
    elbo = -1.4 - 0.6 * np.exp(-step / 40) + 0.02 * rng.normal(size=len(step))
    elbo[::50] = 0.0  # dates without an observed return
    return xr.Dataset(
        {
            "elbo": ("step", elbo),
            "learning_rate": ("step", np.linspace(1e-3, 1e-4, len(step))),
            "kl": (("step", "factor"), 2.0 + 0.1 * rng.normal(size=(len(step), 3))),
            "heads_kl": ("step", 50.0 + step / 10.0),
            "validation_log_score": ("epoch", -1.4 - 0.001 * (epoch - 8) ** 2),
            "validation_rank_ic": ("epoch", 0.03 + 0.001 * rng.normal(size=n_epochs)),
            "last_step": ("epoch", per_epoch * epoch),
        },
        {"step": step, "epoch": epoch, "factor": ["z0", "z1", AWKWARD]},
        attrs={"best_epoch": 8, "objective": "elbo", "n_non_finite": 0, "status": "finished"},
    )


def _collapse(rng: np.random.Generator, dates: np.ndarray):
    names = ["z0", "z1", AWKWARD]
    shape = (len(dates), 3)
    prior = np.full(shape, 0.01)
    moments = {
        "prior_loc": np.zeros(shape),
        "prior_scale": prior,
        "posterior_loc": 0.9 * prior * rng.normal(size=shape),
        "posterior_scale": 0.4 * prior,
    }
    table = xr.Dataset(
        {name: (("date", "factor"), value) for name, value in moments.items()},
        {"date": dates, "factor": names},
    )
    beta = xr.DataArray(
        rng.normal(size=(len(dates), 5, 3)),
        {"date": dates, "asset": list("abcde"), "factor": names},
        ("date", "asset", "factor"),
    )
    return judge_collapse(table, beta, specific_scale=xr.full_like(beta[..., 0], 0.01, float))


def _importance(rng: np.random.Generator, dates: np.ndarray, guide: str, spread: float):
    weights = spread * rng.normal(size=(400, len(dates))) - 20.0
    coords = {"date": dates}
    return judge_importance(
        xr.DataArray(weights, coords, ("draw", "date")),
        xr.DataArray(weights.mean(0), coords, ("date",)),
        guide=guide,
    )


def _simulation(rng: np.random.Generator, dates: np.ndarray, guide: str, width: float):
    """Return ranks of truths among draws that are `width` times as wide as they should be."""
    truth = rng.normal(size=(3, 2, len(dates)))
    draws = width * rng.normal(size=(99, *truth.shape))
    ranks = xr.DataArray(
        (draws < truth).sum(0).astype(float),
        {"quantity": ["z0", "asset S1", "book"], "date": dates,
         "kind": ("quantity", ["factor", "asset", "book"])},
        ("quantity", "repeat", "date"),
    )  # fmt: skip
    return judge_ranks(ranks, 99, guide=guide)


def _recalibrated(rng: np.random.Generator, scale: float, pit: xr.DataArray) -> Recalibrated:
    train = xr.DataArray(
        ndtr(rng.normal(size=(80, 9)) / scale),
        {"date": pd.bdate_range("2020-01-06", periods=80).values},
        ("date", "asset"),
    )
    learned = fit_recalibration(train)
    return Recalibrated(learned, calibrate(learned.apply(pit)))


def _portfolios(rng: np.random.Generator, dates: np.ndarray, scale: float) -> PortfolioResults:
    names = ["equal weight", *(f"random {k}" for k in range(1, N_BOOKS))]
    scores = rng.normal(size=(N_BOOKS, len(dates)))
    pit = xr.DataArray(
        ndtr(scores / scale), {"portfolio": names, "date": dates}, ("portfolio", "date")
    )
    deviation = 0.01
    realised = xr.DataArray(deviation * scores[0], {"date": dates}, ("date",))
    levels = xr.DataArray([1.6449, 2.3263], {"level": [0.95, 0.99]}, ("level",))
    risk = levels * xr.full_like(realised, scale * deviation)
    tests = tuple(
        backtest_value_at_risk(
            realised, risk.sel(level=level, drop=True), level=level,
            expected_shortfall=1.2 * risk.sel(level=level, drop=True), n_resamples=199,
        )
        for level in (0.95, 0.99)
    )  # fmt: skip
    factors = xr.DataArray(np.full(N_BOOKS, 1.0 / scale), {"portfolio": names}, ("portfolio",))
    rescaled = pit.copy(data=ndtr(scores))
    return PortfolioResults(
        coverage=portfolio_coverage(pit),
        rescaled=portfolio_coverage(rescaled),
        scale_factors=factors,
        n_training_dates=80,
        series=xr.Dataset({"realised": realised, "value_at_risk": risk}),
        backtests=tests,
        about="The equal-weight book holds all assets alike.",
    )


def _predictive(rng: np.random.Generator, dates: np.ndarray, scale: float):
    n_draws = 120
    powers = np.array([1.0, 1.0, 0.0, 0.0, 2.0])[:, None]
    centre = np.array([0.0, 0.02, 0.0, 1.0, 1e-4])[:, None]
    width = np.array([0.01, 0.001, 0.2, 0.5, 3e-5])[:, None]
    real = centre + width * rng.normal(size=(len(STATISTICS), len(dates)))
    made = centre[:, None] + width[:, None] * rng.normal(
        size=(2, len(STATISTICS), n_draws, len(dates))
    )
    coords = {"statistic": list(STATISTICS), "date": dates}
    return judge_replicates(
        xr.DataArray(real, coords, ("statistic", "date")),
        xr.DataArray(
            made * scale ** powers[:, None],
            {"source": ["prior", "posterior"], **coords},
            ("source", "statistic", "draw", "date"),
        ),
        xr.DataArray(np.full(len(dates), 0.3), {"date": dates}, ("date",)),
    )


def _information(rank_ic: xr.DataArray) -> InformationResults:
    posterior = posterior_information_coefficient(rank_ic)
    place = np.linspace(-0.1, 0.1, 41)
    height = np.exp(-0.5 * ((place - posterior.mean) / posterior.standard_deviation) ** 2)
    power = information_coefficient_power(
        0.01, sd=0.1, phi=0.0, n_dates=(60, 250), n_simulations=50
    )
    return InformationResults(posterior, xr.DataArray(height, {"mean": place}, ("mean",)), power)


def _scores(returns: xr.DataArray, mean: xr.DataArray, deviation: xr.DataArray, right: np.ndarray):
    laws = {
        "nfi": (mean, deviation),
        "unconditional Gaussian": (0.0 * mean, deviation.copy(data=np.full_like(right, 0.022))),
        "EWMA-volatility Gaussian": (0.0 * mean, deviation.copy(data=1.3 * right)),
    }
    return compare_forecasts(
        {name: gaussian_log_score(*law, returns) for name, law in laws.items()},
        {name: gaussian_crps(*law, returns) for name, law in laws.items()},
        horizon=1,
    )


def _heads(rng: np.random.Generator) -> HeadResults:
    def table(width: float) -> xr.Dataset:
        draw = rng.normal(size=(5, 60))
        decimal, share = {"units": "decimal return"}, {"units": "1"}
        return xr.Dataset(
            {
                "daily_scale": ("draw", 0.02 * np.exp(width * draw[0]), decimal),
                "book_scale": ("draw", 0.01 * np.exp(width * draw[1]), decimal),
                "mean_share": ("draw", 0.01 * np.exp(width * draw[2]), share),
                "factor_share": ("draw", 0.3 * np.exp(width * draw[3]), share),
                "excess_kurtosis": ("draw", 2.0 + width * draw[4], share),
            },
            attrs={"n_dates": 11},
        )

    return HeadResults(table(0.5), table(0.05))


def _restarts(rng: np.random.Generator, dates: np.ndarray) -> RestartComparison:
    kinds = np.repeat(["book", "cell", "portfolio"], 20)
    r_hat = xr.DataArray(
        1.0 + 0.3 * rng.random(60) ** 3, {"kind": ("quantity", kinds)}, ("quantity",)
    )
    names = ["book", "cell", "portfolio", "all"]
    summary = xr.Dataset(
        {"median": ("kind", [1.02] * 4), "share_low": ("kind", [0.8] * 4),
         "n": ("kind", [20, 20, 20, 60])},
        {"kind": names},
    )  # fmt: skip
    correlation = xr.DataArray(
        [[1.0, 0.8], [0.8, 1.0]], dims=("restart", "restart_other"), name="correlation"
    )
    text = "R-hat is below 1.1 for 80% of 60."
    return RestartComparison(
        2, r_hat, summary, correlation, correlation, 0.12, None, Verdict("doubtful", text)
    )
