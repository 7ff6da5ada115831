"""Sensitivities: closed forms, every derivative against another way, every model, bad input."""

import warnings
from dataclasses import replace
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch.func import hessian, jacrev, vmap

from nfi_pyro.attribution.sensitivities.dated_laws import FixedFeatureLaw, dated_laws
from nfi_pyro.attribution.sensitivities.sensitivity import sensitivity, target_derivatives
from nfi_pyro.attribution.sensitivities.targets import TARGETS, Target
from nfi_pyro.data.panel import check_panel
from nfi_pyro.distributions.pricing import PricingFunction
from nfi_pyro.errors import ShapeError, SpecError
from nfi_pyro.nets.jets import Jet
from nfi_pyro.posterior import PricingLaw, draw_fits, forecast, pricing_law
from nfi_pyro.posterior.intervals import factors_comparable, interval_over
from tests.attribution.small_fits import MODELS, PRICING, small_fit, small_panel

DAY = 40
SPAN = ("2010-03-01", "2010-03-12")


def law_of(name: str) -> PricingLaw:
    return pricing_law(small_fit(name), small_panel(), small_panel()["date"].values[DAY])


# ---- closed forms --------------------------------------------------------------------------------


def normal_law() -> PricingLaw:
    """Return N(2 b0 + b0 b1, exp(b1)^2) at three exposures, in decimal return of scale 1."""

    def specific(beta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        mean = (2.0 * beta[..., 0] + beta[..., 0] * beta[..., 1]).unsqueeze(-1)
        return torch.zeros_like(mean), mean, beta[..., 1:].exp()

    def alpha(beta: torch.Tensor) -> Jet:
        one, both = torch.ones_like(beta[..., 0]), torch.tensor([[0.0, 1.0], [1.0, 0.0]])
        return Jet(
            2.0 * beta[..., 0] + beta[..., 0] * beta[..., 1],
            torch.stack([2.0 * one + beta[..., 1], beta[..., 0]], -1),
            both.double().expand(*beta.shape[:-1], 2, 2),
        )

    nothing = torch.zeros(0, dtype=torch.float64)
    points = torch.tensor([[0.3, -0.2], [1.1, 0.5], [-0.7, 0.1]], dtype=torch.float64)
    return PricingLaw(
        PricingFunction(specific, alpha, nothing, nothing, "none"), 1.0, points,
        np.array(["a", "b", "c"]), ("b0", "b1"), np.datetime64("2024-01-02", "ns"),
    )  # fmt: skip


def test_a_normal_law_in_closed_form() -> None:
    law = normal_law()
    b0, b1 = law.beta.unbind(-1)
    mean, deviation, one = 2.0 * b0 + b0 * b1, b1.exp(), torch.ones_like(b0)
    mean_slope = torch.stack([2.0 + b1, b0], -1)
    own = torch.stack([0.0 * one, deviation], -1)  # of the standard deviation
    score = NormalDist().inv_cdf(0.95)
    tail = NormalDist().pdf(score) / 0.05
    expected = {
        "mean": (mean, mean_slope),
        "variance": (deviation**2, 2.0 * deviation[:, None] * own),
        "standard_deviation": (deviation, own),
        "sharpe": (
            (mean - 0.01) / deviation,
            mean_slope / deviation[:, None] - ((mean - 0.01) / deviation**2)[:, None] * own,
        ),
        "value_at_risk": (score * deviation - mean, score * own - mean_slope),
        "expected_shortfall": (tail * deviation - mean, tail * own - mean_slope),
    }
    for name, (value, gradient) in expected.items():
        target = Target(name, risk_free=0.01)  # type: ignore[arg-type]
        found = target_derivatives(law, target, order=2)
        torch.testing.assert_close(found.value, value, rtol=0, atol=1e-9)
        torch.testing.assert_close(found.gradient, gradient, rtol=0, atol=1e-8)
        assert found.hessian is not None
    cross = target_derivatives(law, "mean", order=2).hessian
    torch.testing.assert_close(cross[:, 0, 1], one, rtol=0, atol=0)  # type: ignore[index]


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("model", PRICING)
def test_derivatives_are_those_of_the_target(model: str, name: str) -> None:
    law, target = law_of(model), Target(name, level=0.9, risk_free=1e-4)  # type: ignore[arg-type]

    def value(point: torch.Tensor) -> torch.Tensor:
        return target.evaluate(*law(point))

    found = target_derivatives(law, target, order=2)
    assert found.hessian is not None
    for own, wanted in (
        (found.value, value(law.beta)),
        (found.gradient, vmap(jacrev(value))(law.beta)),
        (found.hessian, vmap(hessian(value))(law.beta)),
    ):
        torch.testing.assert_close(own, wanted, rtol=1e-8, atol=1e-10 * law.return_scale)
    torch.testing.assert_close(found.hessian, found.hessian.mT, rtol=0, atol=1e-15)
    step = 1e-5 * torch.randn(law.beta.shape, generator=torch.Generator().manual_seed(0))
    change = value(law.beta + step.double()) - value(law.beta - step.double())
    slope = 2.0 * (found.gradient * step).sum(-1)
    torch.testing.assert_close(change, slope, rtol=1e-4, atol=1e-9 * law.return_scale)


def test_a_chunk_changes_nothing() -> None:
    law = law_of("nfi")
    for name in ("mean", "expected_shortfall"):
        whole, parts = (target_derivatives(law, name, order=2, chunk=k) for k in (100, 3))
        for own, wanted in zip(parts, whole, strict=True):
            torch.testing.assert_close(own, wanted, rtol=1e-12, atol=1e-15)


# ---- models --------------------------------------------------------------------------------------


def test_a_linear_model_has_one_price_for_all_and_no_interaction() -> None:
    fit = small_fit("linear_factor")
    found = sensitivity(fit, small_panel(), order=2, dates=SPAN)
    rows = found["jacobian"].stack(cell=("date", "asset")).dropna("cell").values.T
    assert np.abs(rows - rows[0]).max() == 0.0
    premia = fit.model.factor_loc[1:].detach().numpy() * fit.return_scale
    np.testing.assert_allclose(rows[0], premia, rtol=1e-6)
    assert float(np.abs(found["hessian"]).max()) == 0.0


def test_factor_vae_has_the_factors_mean_for_all_and_no_interaction() -> None:
    fit = small_fit("factor_vae")
    laws = forecast(fit, small_panel(), dates=SPAN)
    found = sensitivity(fit, small_panel(), order=2, dates=SPAN)
    held = found["value"].notnull()
    assert bool((held == laws.data["entered"].sel(date=found["date"])).all())
    wanted = laws.data["factor_loc"].broadcast_like(found["jacobian"]).where(held)
    np.testing.assert_allclose(found["jacobian"], wanted, rtol=1e-5)
    np.testing.assert_allclose(found["value"], laws.mean, rtol=2e-5, atol=1e-8)
    assert float(np.abs(found["hessian"]).max()) == 0.0
    risk = sensitivity(fit, small_panel(), target="variance", dates=SPAN)
    wanted = 2.0 * laws.data["beta"] * laws.data["factor_scale"] ** 2
    np.testing.assert_allclose(risk["jacobian"], wanted.where(held), rtol=1e-4, atol=1e-12)


def test_features_that_are_held_belong_to_their_assets() -> None:
    law = next(dated_laws(small_fit("factor_vae"), small_panel(), dates=SPAN))
    assert isinstance(law, FixedFeatureLaw)
    for refused in (law.jets, law.marginal):
        with pytest.raises(ShapeError, match="a row for each of the"):
            refused(law.beta[:2])


@pytest.mark.parametrize("model", MODELS)
def test_values_are_the_forecasts_and_labels_say_where_there_is_none(model: str) -> None:
    fit = small_fit(model)
    found = sensitivity(fit, small_panel(), target="standard_deviation", dates=SPAN)
    laws = forecast(fit, small_panel(), dates=SPAN)
    np.testing.assert_allclose(found["value"], laws.standard_deviation, rtol=2e-4)
    assert list(found["factor"].values) == list(
        fit.provenance["exposures"]["names"]
        if fit.model.uses_exposures
        else fit.provenance["factors"]
    )
    assert found["jacobian"].attrs["units"] == "decimal return per unit exposure"
    assert bool(found["jacobian"].isnull().all("factor").equals(found["value"].isnull()))


@pytest.mark.parametrize("model", MODELS)
def test_nothing_after_the_close_of_a_date_is_read(model: str) -> None:
    """The panel cut at the date, and with every later number and label spoiled."""
    panel, fit = small_panel(), small_fit(model)
    day = str(panel["date"].values[DAY])[:10]
    whole = sensitivity(fit, panel, order=2, dates=(day, day))
    cut = panel.isel(date=slice(DAY + 1)).copy(deep=True)
    cut["forward_return"].values[-3:] = np.nan
    spoiled = panel.copy(deep=True)
    spoiled["features"].values[DAY + 1 :] *= -3.0
    spoiled["forward_return"].values[DAY - 1 :] = 0.1
    for other in (cut, spoiled):
        found = sensitivity(fit, check_panel(other), order=2, dates=(day, day))
        for name in ("value", "jacobian", "hessian"):
            np.testing.assert_array_equal(found[name], whole[name])
    before = panel.copy(deep=True)
    before["features"].values[DAY] *= 0.5
    own = sensitivity(fit, check_panel(before), dates=(day, day))
    assert not own["value"].equals(whole["value"])


# ---- several fits --------------------------------------------------------------------------------


def test_draws_of_a_fit_have_a_posterior_interval() -> None:
    fit = small_fit("nfi", heads="low_rank")
    draws = draw_fits(fit, draws=7, seed=1)
    found = sensitivity(draws, small_panel(), dates=SPAN)
    assert found["jacobian"].dims == ("chain", "date", "asset", "factor")
    bounds = interval_over(found)
    values = found["jacobian"].values
    np.testing.assert_allclose(bounds["jacobian"], np.stack([values.min(0), values.max(0)]))
    assert bounds.attrs["interval_level"] == 6.0 / 8.0  # of 7 draws: their range
    assert float((bounds["jacobian"][1] - bounds["jacobian"][0]).min()) > 0.0
    assert factors_comparable(draws)
    restarts = (small_fit("nfi"), small_fit("nfi", seed=4))
    assert not factors_comparable(restarts)
    assert factors_comparable((small_fit("linear_factor"), small_fit("linear_factor", seed=4)))
    with pytest.raises(SpecError, match="at least two entries of chain; got 0"):
        interval_over(sensitivity(fit, small_panel(), dates=SPAN))
    with pytest.raises(SpecError, match="level must lie strictly between 0 and 1; got 1"):
        interval_over(found, level=1.0)


@pytest.mark.parametrize("count", [5, 19, 60])
def test_an_interval_holds_one_more_draw_as_often_as_it_says(count: int) -> None:
    """The sample quantiles of 5 draws, which claim 90 percent, hold 0.6."""
    drawn = np.random.default_rng(count).normal(size=(20_000, count + 1))
    found = xr.DataArray(drawn[:, 1:], dims=("case", "chain"))
    lower, upper = interval_over(found)
    share = float(((drawn[:, 0] > lower) & (drawn[:, 0] < upper)).mean())
    level = interval_over(found).attrs["interval_level"]
    assert level == min(0.9, (count - 1) / (count + 1))
    assert abs(share - level) < 4.0 * np.sqrt(level * (1.0 - level) / 20_000)


# ---- bad input -----------------------------------------------------------------------------------


def relu_law(kinked: bool) -> PricingLaw:
    """Return a law whose mean is a ReLU network's, or a plane."""

    def mean(beta: torch.Tensor) -> torch.Tensor:
        return torch.relu(beta).sum(-1) if kinked else beta.sum(-1)

    def specific(beta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        own = mean(beta).unsqueeze(-1)
        return torch.zeros_like(own), own, torch.ones_like(own)

    def alpha(beta: torch.Tensor) -> Jet:
        slope = (beta > 0.0).to(beta) if kinked else torch.ones_like(beta)
        return Jet(mean(beta), slope, beta.new_zeros(*beta.shape, beta.shape[-1]))

    law = normal_law()
    function = replace(law.function, specific=specific, alpha=alpha)
    return replace(law, function=function)


def test_a_piecewise_linear_network_is_warned_of() -> None:
    with pytest.warns(UserWarning, match=r"piecewise linear \(ReLU\)"):
        target_derivatives(relu_law(kinked=True), "mean", order=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        target_derivatives(relu_law(kinked=True), "mean", order=1)
        target_derivatives(relu_law(kinked=False), "mean", order=2)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"target": "alpha"}, "target must be one of mean, variance, .*; got 'alpha'"),
        ({"order": 3}, "order must be 1 or 2; got 3"),
        ({"chunk": 0}, "chunk must be at least 1 asset; got 0"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        sensitivity(small_fit("nfi"), small_panel(), **options)


def test_bad_targets_and_fits_are_refused() -> None:
    with pytest.raises(SpecError, match="level must lie strictly between 0 and 1; got 1"):
        Target("value_at_risk", level=1.0)
    with pytest.raises(SpecError, match="risk_free must be a decimal return"):
        Target("sharpe", risk_free=3.0)
    with pytest.raises(SpecError, match="draws of one model; got another model"):
        sensitivity((small_fit("nfi"), small_fit("linear_factor")), small_panel())
    with pytest.raises(SpecError, match="at least one fit"):
        sensitivity((), small_panel())


def test_a_date_without_assets_is_empty_and_has_no_law() -> None:
    law = law_of("nfi")
    nobody = replace(law, beta=law.beta[:0], assets=law.assets[:0])
    found = target_derivatives(nobody, "sharpe", order=2)
    assert found.value.shape == (0,)
    assert found.hessian is not None
    assert found.hessian.shape == (0, 3, 3)


def test_it_reads_as_a_dataset(tmp_path: Any) -> None:
    found = sensitivity(small_fit("nfi"), small_panel(), target="sharpe", dates=SPAN)
    found.to_netcdf(tmp_path / "g.nc", engine="h5netcdf")
    with xr.open_dataset(tmp_path / "g.nc", engine="h5netcdf") as read:
        xr.testing.assert_allclose(read.load(), found)
