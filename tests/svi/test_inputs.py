"""What a model needs of a panel is refused before training, with the reason and the place."""

import warnings
from typing import Any

import numpy as np
import pytest
import xarray as xr

from nfi_pyro.data.panel import Panel, check_panel
from nfi_pyro.data.simulate import SimulationSpec, simulate_panel
from nfi_pyro.errors import PanelError
from nfi_pyro.linear_factor import LinearFactor, LinearFactorSpec
from nfi_pyro.mixture_pricing import MixturePricing, MixturePricingSpec
from nfi_pyro.nfi import NFI, NFISpec
from nfi_pyro.svi import SVIConfig, SVIFit, fit_svi
from nfi_pyro.svi.inputs import (
    ReturnScaleWarning,
    check_sizes,
    factor_labels,
    given_names,
    warn_of_percent,
)

DATES, ASSETS, FEATURES = 61, 7, 5
NAMES = ["value", "size", "quality"]


def with_exposures(panel: Panel, values: np.ndarray, names: list[str]) -> Panel:
    return check_panel(
        panel.assign(
            exposures=xr.DataArray(
                values.astype(np.float32),
                {"date": panel["date"], "asset": panel["asset"], "factor": names},
                ("date", "asset", "factor"),
            )
        )
    )


@pytest.fixture
def exposures() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(DATES, ASSETS, 3))


def linear(n_exposures: int) -> LinearFactor:
    return LinearFactor(LinearFactorSpec(n_exposures=n_exposures))


def short_fit(model: Any, panel: Panel) -> SVIFit:
    config = SVIConfig(n_epochs=1, block_size=7, progress=False, device="cpu")
    return fit_svi(model, panel, config=config, seed=1)


# ---- names and sizes ----------------------------------------------------------------------------


def test_names_are_the_panels_exposures_where_it_has_any(panel, exposures) -> None:
    own = with_exposures(panel, exposures, NAMES)
    features = [str(name) for name in panel["feature"].values]
    assert given_names(linear(3), own) == NAMES
    assert given_names(linear(FEATURES), panel) == features
    assert given_names(NFI(NFISpec(n_features=FEATURES, n_factors=3)), own) == features
    assert factor_labels(linear(3), own, 4) == ["market", *NAMES]
    assert factor_labels(NFI(NFISpec(n_features=FEATURES)), own, 2) == ["z0", "z1"]
    assert factor_labels(linear(3), own, 0) == []


def test_another_number_than_the_specs_is_refused(panel, exposures) -> None:
    own = with_exposures(panel, exposures, NAMES)
    with pytest.raises(PanelError, match=r"spec.n_exposures = 5 exposures; got 3. Set n_exposures"):
        check_sizes(linear(FEATURES), own)
    with pytest.raises(PanelError, match=r"spec.n_features = 4 features; got 5"):
        check_sizes(NFI(NFISpec(n_features=4)), panel)
    check_sizes(linear(3), own)


def test_too_few_assets_for_the_factors_are_refused(panel, exposures) -> None:
    few = check_panel(with_exposures(panel, exposures, NAMES).isel(asset=slice(4)))
    with pytest.raises(
        PanelError, match=r"more assets than .* factors; got 4 assets and 4 factors \(intercept in"
    ):
        short_fit(linear(3), few)
    with pytest.raises(PanelError, match=r"got 4 assets and 11 factors. Use fewer factors"):
        short_fit(NFI(NFISpec(n_features=FEATURES, lags=2, n_factors=11)), few)


# ---- exposures ----------------------------------------------------------------------------------


def test_a_column_that_does_not_vary_is_named(panel, exposures) -> None:
    exposures[..., 1] = 7.0
    own = with_exposures(panel, exposures, NAMES)
    with pytest.raises(
        PanelError, match=r"vary over the assets of a training date; got .*: size. Leave"
    ):
        short_fit(linear(3), own)


def test_a_column_that_is_the_same_for_all_assets_of_a_date_is_named(panel, exposures) -> None:
    """A macro series is the intercept's, however much it moves over time."""
    exposures[..., 2] = np.random.default_rng(1).normal(size=(DATES, 1))
    own = with_exposures(panel, exposures, NAMES)
    with pytest.raises(PanelError, match=r"columns that do not: quality. Leave them out"):
        short_fit(linear(3), own)


def test_columns_that_are_combinations_of_each_other_are_named(panel, exposures) -> None:
    both = np.concatenate([exposures, exposures[..., :1] - 2.0 * exposures[..., 2:]], axis=-1)
    own = with_exposures(panel, both.astype(np.float32), [*NAMES, "blend"])
    with pytest.raises(
        PanelError, match=r"linear combinations .*among value, quality, blend. Drop one"
    ):
        short_fit(linear(4), own)


def test_industry_dummies_that_cover_all_assets_are_a_relation(panel, exposures) -> None:
    """They sum to the intercept."""
    group = np.arange(ASSETS) % 2
    dummies = np.stack([group == 0, group == 1], axis=-1).astype(float)
    both = np.concatenate([exposures, np.broadcast_to(dummies, (DATES, ASSETS, 2))], axis=-1)
    own = with_exposures(panel, both, [*NAMES, "banks", "energy"])
    with pytest.raises(PanelError, match=r"relation among banks, energy. Drop one"):
        short_fit(linear(5), own)


def test_strongly_correlated_columns_are_accepted(panel, exposures) -> None:
    exposures[..., 2] = exposures[..., 0] + 0.02 * exposures[..., 2]
    assert short_fit(linear(3), with_exposures(panel, exposures, NAMES)).status == "finished"


def test_scales_far_apart_are_accepted(panel, exposures) -> None:
    own = with_exposures(panel, exposures * np.array([1e-6, 1.0, 1e9]), NAMES)
    assert short_fit(linear(3), own).status == "finished"


def test_what_happens_after_training_does_not_decide(panel, exposures) -> None:
    exposures[50:, :, 1] = 7.0
    assert short_fit(linear(3), with_exposures(panel, exposures, NAMES)).status == "finished"


# ---- percent ------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1.87, 31.0])
def test_returns_in_percent_are_warned_of_with_their_scale(scale: float) -> None:
    with pytest.warns(ReturnScaleWarning, match=rf"standard deviation of {scale:g} over 1 trading"):
        warn_of_percent(scale, {"unit": "return", "horizon": 1})


@pytest.mark.parametrize(
    ("scale", "label"),
    [
        (0.02, {"unit": "return", "horizon": 1}),
        (0.29, {"unit": "return", "horizon": 1}),
        (1.2, {"unit": "return", "horizon": 21}),
        (0.29, {"unit": "rank", "horizon": 1}),
        (1.0, {"unit": "rank", "horizon": 1}),
    ],
)
def test_plausible_scales_pass_in_silence(scale: float, label: dict[str, Any]) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_of_percent(scale, label)
    assert caught == []


def test_a_fit_on_percent_warns_and_goes_on() -> None:
    sizes = SimulationSpec(n_dates=DATES, n_assets=11, n_features=2, return_scale=2.0)
    panel = simulate_panel(sizes, seed=2)[0]
    with pytest.warns(ReturnScaleWarning, match=r"that is \d+%: are they in percent\?"):
        fit = short_fit(MixturePricing(MixturePricingSpec(n_exposures=2)), panel)
    assert fit.status == "finished"
