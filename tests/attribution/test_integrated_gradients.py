"""Integrated gradients: closed form, captum, completeness, what moves, plants, refusals."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from nfi_pyro.attribution.networks.explained import wide_model
from nfi_pyro.attribution.networks.integrated_gradients import IntegrationPath, integrated_gradients
from nfi_pyro.data.panel import Panel
from nfi_pyro.data.training.windows import PanelBatch
from nfi_pyro.errors import SpecError, WeightsError
from nfi_pyro.posterior import forecast, pricing_law
from nfi_pyro.svi import SVIFit
from tests.attribution.explained_maker import (
    DATES,
    DAY,
    DRIVER,
    EVERY,
    FEATURES,
    LAGS,
    LONELY,
    WINDOWED,
    day_of,
    explain_day,
    fit_bent,
    fit_driven,
    forget,
    uneven_weights,
)


def test_a_linear_model_in_closed_form(fits: Any, panel: Panel) -> None:
    fit = fits("linear_factor")
    law = pricing_law(fit, panel, panel["date"].values[DAY])
    price = (fit.model.factor_loc[1:].detach().double() * fit.return_scale).numpy()
    beta = law.beta.numpy()
    for baseline, start in (("zero", 0.0), ("median", np.median(beta, axis=0))):
        path = IntegrationPath(baseline=baseline)  # type: ignore[arg-type]
        found = integrated_gradients(
            fit, panel, weights=str(law.assets[1]), dates=day_of(panel), path=path
        )
        expected = (beta[1] - start) * price
        np.testing.assert_allclose(found.attribution.values[0, 0], expected, rtol=1e-11, atol=1e-17)
        assert int(found.nodes[0]) == 8
        assert found.attribution.attrs["units"] == "decimal return"
        assert found.attribution["feature"].values.tolist() == panel["feature"].values.tolist()


def test_captum_integrates_the_same(fits: Any, panel: Panel) -> None:
    captum = pytest.importorskip("captum.attr")
    fit = fits("neural_factor")
    day = explain_day(fit, panel)
    network = wide_model(fit).alpha
    oracle = captum.IntegratedGradients(network)
    parts = oracle.attribute(
        day.beta, baselines=torch.zeros_like(day.beta), n_steps=64, method="gausslegendre"
    )
    found = integrated_gradients(
        fit, panel, dates=day_of(panel), path=IntegrationPath(tolerance=1e-12), by_asset=True
    )
    assert found.by_asset is not None
    own = found.by_asset.values[0, day.kept, 0]
    expected = parts.detach().numpy() * fit.return_scale / len(day.beta)
    np.testing.assert_allclose(own, expected, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("target", ["mean", "standard_deviation"])
def test_attributions_add_up(fits: Any, panel: Panel, target: str) -> None:
    days = (str(panel["date"].values[20])[:10], None)
    for name in EVERY:
        fit = fits(name)
        for prior in ("moves", "held") if name in WINDOWED else ("moves",):
            path = IntegrationPath(prior=prior)
            found = integrated_gradients(
                fit, panel, target=target, dates=days, path=path, by_asset=True
            )
            assert bool(found.complete.all()), (name, prior)
            total = found.attribution.sum(["lag", "feature"])
            gap = abs(total - (found.value - found.baseline_value))
            size = abs(found.attribution).sum(["lag", "feature"])
            floor = 1e-9 * (abs(found.value) + abs(found.baseline_value))
            expected = gap / np.maximum(size, floor)
            np.testing.assert_allclose(  # below 1e-6 the gap is rounding
                found.completeness_error.values, expected.values, rtol=1e-6, atol=1e-6
            )
            assert found.by_asset is not None
            over_assets = found.by_asset.sum("asset").transpose("date", "lag", "feature")
            np.testing.assert_allclose(
                over_assets.values, found.attribution.values, rtol=1e-9, atol=1e-18
            )
            expected_mean = forecast(fit, panel, dates=days).mean.mean("asset")
            if target == "mean":
                np.testing.assert_allclose(
                    found.value.values, expected_mean.values, rtol=1e-4, atol=1e-7
                )


def plain_mean(fit: SVIFit, inputs: torch.Tensor) -> float:
    """Return the equal-weight mean at inputs (lag, row, feature), by the model alone."""
    n_rows = inputs.shape[1]
    present = torch.ones(1, n_rows, dtype=torch.bool)
    model = wide_model(fit)
    context = model.context(PanelBatch(inputs, present, torch.arange(1), 1))
    return float(model.law(context).marginal().mean.mean()) * fit.return_scale


def test_both_ends_are_the_models_own_forecasts(fits: Any, panel: Panel) -> None:
    """Attention weights are held on the way, yet at the baseline they make no difference."""
    for name in WINDOWED:
        fit = fits(name)
        day = explain_day(fit, panel)
        medians = day.inputs.quantile(0.5, dim=1, keepdim=True).expand_as(day.inputs)
        starts = {"zero": torch.zeros_like(day.inputs), "median": medians}
        for baseline, start in starts.items():
            path = IntegrationPath(baseline=baseline)  # type: ignore[arg-type]
            found = integrated_gradients(fit, panel, dates=day_of(panel), path=path)
            own = plain_mean(fit, start.contiguous())
            assert float(found.baseline_value[0]) == pytest.approx(own, rel=1e-10, abs=1e-15)
            assert float(found.value[0]) == pytest.approx(
                plain_mean(fit, day.inputs), rel=1e-10, abs=1e-15
            )


def test_features_outside_the_book_count_through_the_prior_alone(fits: Any, panel: Panel) -> None:
    fit, sizes = fits("nfi"), {}
    asset = str(panel["asset"].values[explain_day(fit, panel).kept][0])
    for prior in ("moves", "held"):
        found = integrated_gradients(
            fit,
            panel,
            weights=asset,
            dates=day_of(panel),
            path=IntegrationPath(prior=prior),
            by_asset=True,
        )
        assert found.by_asset is not None
        assert found.prior == prior
        others = found.by_asset[0].drop_sel(asset=asset).fillna(0.0)
        sizes[prior] = float(abs(others).sum())
    assert sizes["held"] == 0.0
    assert sizes["moves"] > 1e-5
    law = pricing_law(fit, panel, panel["date"].values[DAY])
    held = integrated_gradients(
        fit, panel, weights=asset, dates=day_of(panel), path=IntegrationPath(prior="held")
    )
    hidden = wide_model(fit).extractor(torch.zeros(LAGS, 1, FEATURES, dtype=torch.float64), 1)
    beta = fit.model.canonical.exposures(wide_model(fit).beta(hidden))[0]
    start = float(law.marginal(beta).mean.detach())
    assert float(held.baseline_value[0]) == pytest.approx(start, rel=1e-9)


def test_a_planted_feature_gets_it_all(panel: Panel) -> None:
    fit = forget(fit_bent("nfi", panel))
    with torch.no_grad():  # one feature enters
        fit.model.extractor.projection.weight[:, [0, 2, 3, 4]] = 0.0
    found = integrated_gradients(fit, panel, weights=uneven_weights(panel))
    cells = abs(found.attribution).sum("date")
    assert float(cells[0, 1]) > 0.0
    rest = float(cells.sum()) - float(cells[0, 1])
    assert rest <= 1e-12 * float(cells[0, 1])


def test_a_fit_finds_the_feature_that_drives_returns() -> None:
    fit, panel = fit_driven()
    found = integrated_gradients(fit, panel, weights="A7")
    size = abs(found.attribution).mean("date")[0]
    assert int(size.argmax("feature")) == DRIVER
    assert float(size[DRIVER]) > 3.0 * float(size.drop_isel(feature=DRIVER).max())


def test_nodes_double_until_the_gap_is_small(fits: Any, panel: Panel) -> None:
    fit = fits("nfi")
    coarse = integrated_gradients(fit, panel, path=IntegrationPath(tolerance=0.5))
    assert (coarse.nodes == 8).all()
    fine = integrated_gradients(fit, panel, path=IntegrationPath(tolerance=0.01))
    assert set(np.unique(fine.nodes.values)) <= {8, 16, 32, 64, 128, 256}
    assert int(fine.nodes.max()) > 8
    assert float(fine.completeness_error.max()) < 0.01
    never = integrated_gradients(
        fit,
        panel,
        dates=day_of(panel),
        path=IntegrationPath(tolerance=1e-13, most_nodes=31),
    )
    assert int(never.nodes[0]) == 16
    assert not bool(never.complete[0])
    assert np.isfinite(never.attribution.values).all()


def test_attribution_of_a_book_is_that_of_its_assets(fits: Any, panel: Panel) -> None:
    fit, book = fits("mixture_pricing"), uneven_weights(panel)
    day = day_of(panel)
    held = {name: weight for name, weight in book.items() if _entered(panel, name)}
    assert len(held) >= 3
    whole = integrated_gradients(fit, panel, weights=held, dates=day)
    parts = [
        weight * integrated_gradients(fit, panel, weights=name, dates=day).attribution.values
        for name, weight in held.items()
    ]
    np.testing.assert_allclose(whole.attribution.values, sum(parts), rtol=1e-9, atol=1e-15)


def _entered(panel: Panel, name: str) -> bool:
    return bool(panel["tradable"].sel(asset=name).values[DAY])


def test_memory_is_bounded_without_a_trace(
    fits: Any, panel: Panel, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = fits("nfi")
    one = integrated_gradients(fit, panel, dates=day_of(panel))
    monkeypatch.setattr("nfi_pyro.attribution.networks.integrated_gradients._ROWS", 3)
    two = integrated_gradients(fit, panel, dates=day_of(panel))
    np.testing.assert_allclose(two.attribution.values, one.attribution.values, rtol=1e-10)


def test_fits_are_chains_and_gaps_are_flagged(fits: Any, panel: Panel) -> None:
    pair = [fits("factor_vae", 3), fits("factor_vae", 5)]
    name = str(panel["asset"].values[4])
    found = integrated_gradients(pair, panel, weights=name, by_asset=True)
    assert found.attribution.dims == ("chain", "date", "lag", "feature")
    assert found.by_asset is not None
    assert found.by_asset.dims == ("chain", "date", "asset", "lag", "feature")
    assert found.complete.dims == ("chain", "date")
    alone = integrated_gradients(pair[1], panel, weights=name)
    np.testing.assert_array_equal(found.attribution[1].values, alone.attribution.values)
    assert alone.by_asset is None
    gone = np.isnan(alone.value.values)
    assert gone.sum() >= 2
    assert gone[LONELY - 1]
    assert (alone.uncovered.values[gone] == 1.0).all()
    assert (alone.uncovered.values[~gone] == 0.0).all()
    assert (alone.nodes.values[gone] == 0).all()
    assert not alone.complete.values[gone].any()
    assert np.isnan(alone.attribution.values[gone]).all()
    assert alone.attribution.sizes["date"] == DATES - LAGS + 1


def test_wrong_options_are_refused(fits: Any, panel: Panel) -> None:
    fit = fits("nfi")
    with pytest.raises(SpecError, match="target must be one of mean, standard_deviation; got 'sd'"):
        integrated_gradients(fit, panel, target="sd")
    with pytest.raises(ValidationError, match="Input should be 'zero' or 'median'"):
        IntegrationPath(baseline="mean")  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match="greater than or equal to 8"):
        IntegrationPath(most_nodes=4)
    with pytest.raises(SpecError, match="fits must hold at least one fit"):
        integrated_gradients([], panel)
    with pytest.raises(WeightsError, match="got unknown nobody"):
        integrated_gradients(fit, panel, weights="nobody")
    other = replace(fit, label=fit.label | {"horizon": 5})
    with pytest.raises(SpecError, match="draws of one model; got another label at fit"):
        integrated_gradients([fit, other], panel)
    strange = replace(fit, model=SimpleNamespace(name="strange", uses_exposures=False))
    with pytest.raises(SpecError, match=r"an explained model must be one of .*; got strange"):
        integrated_gradients(strange, panel)
