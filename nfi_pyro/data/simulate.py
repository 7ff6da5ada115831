"""Panels drawn from a known law of the FactorVAE or NFI type, to test fits against the truth."""

from typing import Literal, Self

import numpy as np
import pandas as pd
import xarray as xr
from pydantic import BaseModel, ConfigDict, Field, model_validator

from nfi_pyro.data.panel import Panel, check_panel
from nfi_pyro.data.simulation_pricing import SPECIFIC_SPREAD, TrueMechanism, tail_noise
from nfi_pyro.data.simulation_truth import SimulationTruth
from nfi_pyro.dims import ASSET, COMPONENT, DATE, FACTOR, FEATURE
from nfi_pyro.errors import SpecError

__all__ = ["SimulationSpec", "SimulationTruth", "simulate_panel"]

_FIRST_DATE = "2010-01-04"
_FACTOR_DECAY = 0.7  # each factor is this much narrower than the one before


class SimulationSpec(BaseModel):
    """What a simulated panel is drawn from; scales are multiples of `return_scale`.

    Attributes
    ----------
    n_dates, n_assets, n_features, n_factors : int
        Sizes. A feature and a factor may be shared by several roles when there are few.
    return_scale : float
        Decimal; the unit of every other scale, about the standard deviation of one return.
    persistence : float
        AR(1) coefficient of every feature of every asset, in [0, 1).
    common_share : float
        Share of a feature's variance that all assets have in common, in [0, 1); it is what moves
        the cross-section mean, and so the factors' prior.
    market_intercept : float
        Exposure of the average asset to the first factor, in [0, 1]. At 1 every asset has it: a
        pure market factor.
    with_exposures : bool
        Whether the panel carries the true exposures, for models that are given them. A pure market
        factor is left out: its exposure does not vary, and such models add it themselves.
    alpha_form : {"affine", "tanh", "exposures"}
        Alpha is `alpha_scale` times a unit-norm combination of the features, its tanh, or a
        nonlinear function of the exposures (`TrueMechanism`).
    alpha_scale : float
        >= 0; standard deviation of alpha (of the combination for "tanh").
    factor_mean_level : float
        What the prior mean of every factor moves around.
    factor_mean_scale : float
        >= 0; the prior mean of each factor moves within plus and minus this value.
    factor_scale : float
        > 0; standard deviation of ``beta z`` of the average asset in the calm regime.
    factor_scale_spread : float
        >= 0; the log prior scale of each factor moves within plus and minus this value.
    specific_scale : float
        > 0; standard deviation of the noise, or its median when it depends on the features.
    specific_form : {"constant", "features", "exposures"}
        One specific scale, or one that depends on the features or the exposures of the date.
    tail_dof : float or None
        Degrees of freedom of Student-t noise, in (2, 200]; None for Gaussian noise. The standard
        deviation is the specific scale either way.
    tail_share : float
        Share of the second, wide component of noise that is a mixture of two normals, in [0, 1);
        0 for one normal. The mean is 0 and the standard deviation the specific scale either way.
        Not together with `tail_dof`.
    tail_ratio : float
        Scale of the wide component over that of the core, >= 1.
    tail_offset : float
        Mean of the wide component less that of the core, in scales of the core.
    tail_form : {"constant", "exposures"}
        One share, or one whose log odds depend on the exposures.
    regime_switch : bool
        Whether a two-state Markov chain, which starts calm, multiplies all factor scales.
    regime_ratio : float
        Factor scale of the turbulent state over the calm one, >= 1.
    regime_persistence : float
        Probability of staying in the state from one date to the next, in [0.5, 1).
    missing_share : float
        Share of cells that are not tradable, at random, in [0, 1).
    late_listing_share : float
        Share of assets listed after the first date, between 10 and 60 percent of the span, in
        [0, 1).
    unobserved_share : float
        Share of tradable cells without a forward return, at random, in [0, 1).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    n_dates: int = Field(default=250, ge=2)
    n_assets: int = Field(default=60, ge=2)
    n_features: int = Field(default=6, ge=1)
    n_factors: int = Field(default=3, ge=1)
    return_scale: float = Field(default=0.02, gt=0)
    persistence: float = Field(default=0.9, ge=0, lt=1)
    common_share: float = Field(default=0.1, ge=0, lt=1)
    market_intercept: float = Field(default=0.9, ge=0, le=1)
    with_exposures: bool = False
    alpha_form: Literal["affine", "tanh", "exposures"] = "affine"
    alpha_scale: float = Field(default=0.1, ge=0)
    factor_mean_level: float = 0.0
    factor_mean_scale: float = Field(default=0.1, ge=0)
    factor_scale: float = Field(default=0.6, gt=0)
    factor_scale_spread: float = Field(default=0.4, ge=0, le=3)
    specific_scale: float = Field(default=0.8, gt=0)
    specific_form: Literal["constant", "features", "exposures"] = "constant"
    tail_dof: float | None = Field(default=None, gt=2, le=200)
    tail_share: float = Field(default=0.0, ge=0, lt=1)
    tail_ratio: float = Field(default=3.0, ge=1)
    tail_offset: float = 0.0
    tail_form: Literal["constant", "exposures"] = "constant"
    regime_switch: bool = False
    regime_ratio: float = Field(default=2.0, ge=1)
    regime_persistence: float = Field(default=0.98, ge=0.5, lt=1)
    missing_share: float = Field(default=0.002, ge=0, lt=1)
    late_listing_share: float = Field(default=0.1, ge=0, lt=1)
    unobserved_share: float = Field(default=0.01, ge=0, lt=1)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        """Refuse two kinds of noise at once, and exposures that do not vary."""
        if self.tail_dof is not None and self.tail_share > 0:
            raise ValueError("tail_share must be 0 where tail_dof is given: one kind of noise")
        if self.n_factors == 1 and self.market_intercept == 1:
            uses = (self.alpha_form, self.specific_form, self.tail_form)
            if "exposures" in uses or self.with_exposures:
                raise ValueError("n_factors must be at least 2 beside a pure market factor")
        return self


def simulate_panel(
    spec: SimulationSpec | None = None, *, seed: int
) -> tuple[Panel, SimulationTruth]:
    """Return a panel drawn from a known factor law, and that law.

    Features of an asset are standard normal AR(1) series. On each date, with x the features of
    an asset and c the cross-section mean of the features of the tradable assets, standardised:
    ``beta = intercept + W x``; ``alpha = alpha_scale * (w x)``, its tanh, or a nonlinear function
    of beta; the prior of factor k has mean ``level + factor_mean_scale * tanh(c_k)`` and scale
    ``base_k * exp(spread * tanh(c_(k+1)))``, times the ratio of the regime; ``z ~ N(mean,
    scale^2)``; ``y = alpha + beta z + noise`` (equations 1-2, 12 and 15-16 of the FactorVAE paper
    with known functions in place of networks; Student-t noise and regimes are ours). With alpha
    and noise functions of beta it is the law of NFI (deck A, lines 177-257).

    Parameters
    ----------
    spec : SimulationSpec, optional
        Sizes, scales and what is missing. Default: ``SimulationSpec()``.
    seed : int
        >= 0. Each part of the law draws from its own stream, so a change of one option leaves
        the draws of the others alone. Global generators are not touched.

    Returns
    -------
    panel : Panel
        `features` (date, asset, feature) float32, known at the close, finite where tradable and
        NaN elsewhere; `tradable` (date, asset) bool; `forward_return` (date, asset) float32,
        decimal, NaN where not tradable or not observed, from the close of the next date to the
        one after (start_lag 1, horizon 1). Business days from 2010-01-04, assets A000, A001, ...
        `exposures` (date, asset, factor) float32, where asked, NaN where not tradable.
    truth : SimulationTruth
        The law behind it, float64, an exact function of the panel's features except for the
        regime.

    Raises
    ------
    SpecError
        If `seed` is negative.
    """
    spec = SimulationSpec() if spec is None else spec
    if seed < 0:
        raise SpecError(f"seed must be >= 0; got {seed} at simulate_panel. Pass a seed >= 0.")
    streams = [np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(9)]
    feature_rng, listing_rng, weight_rng, regime_rng, factor_rng, noise_rng, label_rng = streams[:7]
    mechanism_rng, component_rng = streams[7:]
    tradable = _draw_tradable(spec, listing_rng)
    features = np.where(tradable[..., None], _draw_features(spec, feature_rng), np.float32(np.nan))
    law = _build_law(spec, features, tradable, weight_rng, _draw_regime(spec, regime_rng))
    law = _price_exposures(spec, law, mechanism_rng)
    law["z"] = law["factor_loc"] + law["factor_scale"] * factor_rng.standard_normal(
        law["factor_loc"].shape
    )
    standard = _draw_noise(spec, noise_rng)
    noise = law["specific_scale"] * standard
    if spec.tail_share > 0:
        wide = component_rng.random(tradable.shape) < law["noise_weight"].values[..., 1]
        parts = law["noise_loc"] + law["noise_scale"] * xr.DataArray(standard, dims=(DATE, ASSET))
        noise = parts[..., 0].where(~wide, parts[..., 1])
    returns = law["alpha"] + (law["beta"] * law["z"]).sum(FACTOR, skipna=False) + noise
    observed = tradable & (label_rng.random(tradable.shape) >= spec.unobserved_share)
    panel = xr.Dataset(
        {
            "features": ((DATE, ASSET, FEATURE), features),
            "tradable": ((DATE, ASSET), tradable),
            "forward_return": returns.where(observed).astype(np.float32),
        },
        coords={name: law[name] for name in (DATE, ASSET, FEATURE)},
    )
    if spec.with_exposures:
        varies = law["beta"].isel(factor=slice(int(spec.market_intercept == 1), None))
        panel["exposures"] = varies.astype(np.float32)
    panel["forward_return"].attrs = {"start_lag": 1, "horizon": 1, "unit": "return"}
    return check_panel(panel), SimulationTruth(law=law, tail_dof=spec.tail_dof)


def _draw_features(spec: SimulationSpec, rng: np.random.Generator) -> np.ndarray:
    """Return AR(1) features, standard normal at every date, `(date, asset, feature)` float32.

    Common and own parts share the AR coefficient, so their sum is AR(1) with it too.
    """
    shape = (spec.n_dates, spec.n_assets, spec.n_features)
    common = rng.standard_normal((spec.n_dates, 1, spec.n_features))
    own = rng.standard_normal(shape)
    series = np.sqrt(spec.common_share) * common + np.sqrt(1.0 - spec.common_share) * own
    innovation = np.sqrt(1.0 - spec.persistence**2)
    for date in range(1, spec.n_dates):
        series[date] = spec.persistence * series[date - 1] + innovation * series[date]
    return series.astype(np.float32)


def _draw_tradable(spec: SimulationSpec, rng: np.random.Generator) -> np.ndarray:
    """Return which assets can be traded, `(date, asset)` bool: listed and not in a hole."""
    n_late = int(spec.late_listing_share * spec.n_assets)
    first = np.zeros(spec.n_assets, dtype=int)
    late = rng.permutation(spec.n_assets)[:n_late]
    first[late] = np.ceil(rng.uniform(0.1, 0.6, size=n_late) * (spec.n_dates - 1)).astype(int)
    listed = np.arange(spec.n_dates)[:, None] >= first
    return listed & (rng.random(listed.shape) >= spec.missing_share)


def _draw_regime(spec: SimulationSpec, rng: np.random.Generator) -> np.ndarray:
    """Return the state by date, 0 calm and 1 turbulent, `(date,)` int8; calm at first."""
    if not spec.regime_switch:
        return np.zeros(spec.n_dates, dtype=np.int8)
    switches = rng.random(spec.n_dates) >= spec.regime_persistence
    switches[0] = False
    return (np.cumsum(switches) % 2).astype(np.int8)


def _draw_noise(spec: SimulationSpec, rng: np.random.Generator) -> np.ndarray:
    """Return noise of mean 0 and standard deviation 1, `(date, asset)`."""
    noise = rng.standard_normal((spec.n_dates, spec.n_assets))
    if spec.tail_dof is None:
        return noise
    return noise * np.sqrt((spec.tail_dof - 2.0) / rng.chisquare(spec.tail_dof, size=noise.shape))


def _unit_rows(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Return random directions: the last axis has Euclidean norm 1."""
    rows = rng.standard_normal(shape)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def _build_law(
    spec: SimulationSpec,
    features: np.ndarray,
    tradable: np.ndarray,
    rng: np.random.Generator,
    regime: np.ndarray,
) -> xr.Dataset:
    """Return the law of every date as a function of the features, without the realised z."""
    x = features.astype(np.float64)  # the rounded features that a model sees, not what was drawn
    intercept = np.zeros(spec.n_factors)
    intercept[0] = spec.market_intercept
    # E[beta_k^2] = 1 for every factor, so that factor scales say how much each one moves.
    slope_norm = np.sqrt(1.0 - intercept**2)
    beta_weight = slope_norm[:, None] * _unit_rows(rng, (spec.n_factors, spec.n_features))
    alpha_weight, specific_weight = _unit_rows(rng, (2, spec.n_features))
    signal = x @ alpha_weight
    alpha = np.tanh(signal) if spec.alpha_form == "tanh" else signal
    specific = np.ones(tradable.shape)
    if spec.specific_form == "features":
        specific = np.exp(SPECIFIC_SPREAD * np.tanh(x @ specific_weight))
    factor_loc, factor_scale = _factor_prior(spec, x, tradable)
    ratio = spec.regime_ratio ** regime.astype(np.float64)[:, None]
    unit = spec.return_scale
    cells = (DATE, ASSET)
    return xr.Dataset(
        {
            "alpha": (cells, unit * spec.alpha_scale * alpha),
            "beta": ((DATE, ASSET, FACTOR), intercept + x @ beta_weight.T),
            "specific_scale": (
                cells,
                np.where(tradable, unit * spec.specific_scale * specific, np.nan),
            ),
            "factor_loc": ((DATE, FACTOR), unit * factor_loc),
            "factor_scale": ((DATE, FACTOR), unit * factor_scale * ratio),
            "regime": ((DATE,), regime),
            "alpha_weight": ((FEATURE,), alpha_weight),
            "beta_intercept": ((FACTOR,), intercept),
            "beta_weight": ((FACTOR, FEATURE), beta_weight),
            "specific_weight": ((FEATURE,), specific_weight),
        },
        coords={
            DATE: pd.bdate_range(_FIRST_DATE, periods=spec.n_dates),
            ASSET: [f"A{i:03d}" for i in range(spec.n_assets)],
            FEATURE: [f"x{i}" for i in range(spec.n_features)],
            FACTOR: [f"z{i}" for i in range(spec.n_factors)],
        },
    )


def _price_exposures(spec: SimulationSpec, law: xr.Dataset, rng: np.random.Generator) -> xr.Dataset:
    """Return the law with every part that depends on the exposures in place."""
    mechanism = TrueMechanism.draw(law["beta_intercept"].values, law["beta_weight"].values, rng)
    beta, cells = law["beta"].to_numpy(), (DATE, ASSET)
    changed: dict[str, tuple[tuple[str, ...], np.ndarray]] = {}
    if spec.alpha_form == "exposures":
        unit = spec.return_scale * spec.alpha_scale
        changed["alpha"] = (cells, unit * mechanism.alpha(beta))
        changed["alpha_gradient"] = ((*cells, FACTOR), unit * mechanism.alpha_gradient(beta))
    if spec.specific_form == "exposures":
        scale = spec.return_scale * spec.specific_scale * mechanism.specific_multiple(beta)
        changed["specific_scale"] = (cells, scale)
    law = law.assign(changed)
    if spec.tail_share > 0:
        share = np.where(law["specific_scale"].notnull(), spec.tail_share, np.nan)
        if spec.tail_form == "exposures":
            share = mechanism.tail_share(beta, spec.tail_share)
        weight, loc, scale = tail_noise(share, ratio=spec.tail_ratio, offset=spec.tail_offset)
        by_component, specific = (*cells, COMPONENT), law["specific_scale"].to_numpy()[..., None]
        law = law.assign(
            noise_weight=(by_component, weight),
            noise_loc=(by_component, specific * loc),
            noise_scale=(by_component, specific * scale),
        )
    return law


def _factor_prior(
    spec: SimulationSpec, x: np.ndarray, tradable: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return prior mean and calm scale of the factors, each `(date, factor)`.

    Both move with the cross-section mean of a feature over the tradable assets, in units of its
    own standard deviation; a date without assets has the average prior.
    """
    count = np.maximum(tradable.sum(axis=1), 1)[:, None]
    centre = np.where(tradable[..., None], x, 0.0).sum(axis=1) / count
    centre /= np.sqrt(spec.common_share + (1.0 - spec.common_share) / count)
    factor = np.arange(spec.n_factors)
    base = _FACTOR_DECAY**factor
    base = spec.factor_scale * base / np.linalg.norm(base)
    move = np.tanh(centre[:, factor % spec.n_features])
    loc = spec.factor_mean_level + spec.factor_mean_scale * move
    move = np.tanh(centre[:, (factor + 1) % spec.n_features])
    return loc, base * np.exp(spec.factor_scale_spread * move)
