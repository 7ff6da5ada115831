"""A path of penalties: what each weight does to the network, and which fit is chosen."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

from nfi_pyro.data.panel import Panel, check_panel
from nfi_pyro.errors import SpecError
from nfi_pyro.linear_factor import LinearFactor, LinearFactorSpec
from nfi_pyro.nets.pricing import Perceptron
from nfi_pyro.neural_factor import NeuralFactor, NeuralFactorSpec
from nfi_pyro.nfi import NFI, NFISpec
from nfi_pyro.svi import PenaltyPath, SVIConfig, SVIFit, fit_penalty_path, fit_svi
from nfi_pyro.svi.penalty_path import factor_norms

DATES, ASSETS, FEATURES, PLANTED = 53, 29, 5, 2
GROUP = (0.0, 0.01, 0.1)


def plant(n_assets: int = ASSETS) -> Panel:
    """Return a panel whose returns are a curved function of one feature, and noise."""
    rng = np.random.default_rng(37)
    features = rng.normal(size=(DATES, n_assets, FEATURES)).astype(np.float32)
    signal = np.tanh(1.5 * features[..., PLANTED]) + 0.5 * features[..., PLANTED] ** 2
    returns = 0.02 * (signal + 0.7 * rng.normal(size=signal.shape))
    cells = ("date", "asset")
    attrs = {"start_lag": 1, "horizon": 1, "unit": "return"}
    return check_panel(
        xr.Dataset(
            {
                "features": ((*cells, "feature"), features),
                "tradable": (cells, np.ones(signal.shape, dtype=bool)),
                "forward_return": (cells, returns.astype(np.float32), attrs),
            },
            {
                "date": pd.bdate_range("2021-03-01", periods=DATES).to_numpy(),
                "asset": [f"A{place:02d}" for place in range(n_assets)],
                "feature": [f"f{place}" for place in range(FEATURES)],
            },
        )
    )


@pytest.fixture(scope="module")
def planted() -> Panel:
    return plant()


@pytest.fixture(scope="module")
def recipe() -> NeuralFactor:
    return NeuralFactor(NeuralFactorSpec(n_exposures=FEATURES, hidden_size=11), seed=101)


@pytest.fixture(scope="module")
def training() -> SVIConfig:
    """Return 12 epochs of 6 long steps, after which the norms have settled."""
    return SVIConfig(
        n_epochs=12,
        block_size=7,
        learning_rate=5e-2,
        patience=12,
        weight_decay=0.0,
        progress=False,
        device="cpu",
    )


@pytest.fixture(scope="module")
def group(planted: Panel, recipe: NeuralFactor, training: SVIConfig) -> PenaltyPath:
    return fit_penalty_path(recipe, planted, kind="group", values=GROUP, config=training, seed=3)


def weights_of(fit: SVIFit) -> dict[str, torch.Tensor]:
    return fit.model.state_dict()


def curvature(fit: SVIFit, panel: Panel) -> float:
    """Return the mean squared Hessian of alpha at the panel's features."""
    points = torch.from_numpy(panel["features"].values.reshape(-1, FEATURES))
    return float(fit.model.alpha.jet(points).hessian.square().sum((-1, -2)).mean().detach())


def test_the_group_penalty_drives_noise_out_and_keeps_what_is_planted(group: PenaltyPath) -> None:
    norms = group.table["factor_norm"].values
    noise = np.delete(norms, PLANTED, axis=1)
    assert np.diff(noise.mean(axis=1)).max() < 0
    assert np.diff(noise.max(axis=1)).max() < 0
    assert (norms.argmax(axis=1) == PLANTED).all()
    assert group.table["n_active"].values.tolist() == [FEATURES, FEATURES, 1]
    assert (noise[-1] < 0.05 * norms[-1, PLANTED]).all()
    assert group.table["factor"].values.tolist() == [f"f{place}" for place in range(FEATURES)]
    assert group.table["penalty"].values.tolist() == list(GROUP)


def test_no_penalty_is_a_plain_fit_to_the_bit(
    group: PenaltyPath, planted: Panel, recipe: NeuralFactor, training: SVIConfig
) -> None:
    plain = fit_svi(recipe, planted, config=training, seed=3)
    found = group.fits[0]
    assert all(torch.equal(weights_of(plain)[name], v) for name, v in weights_of(found).items())
    xr.testing.assert_identical(found.history, plain.history)
    assert not torch.equal(
        weights_of(group.fits[1])["alpha.first.weight"], weights_of(plain)["alpha.first.weight"]
    )


def test_the_table_is_what_the_histories_say(group: PenaltyPath) -> None:
    for place, fit in enumerate(group.fits):
        row = group.table.isel(penalty=place)
        curve = fit.history["validation_log_score"]
        assert float(row["validation_log_score"]) == float(curve.max())
        assert int(row["best_epoch"]) == int(curve["epoch"][int(curve.values.argmax())])
        ranks = fit.history["validation_rank_ic"].sel(epoch=int(row["best_epoch"]))
        assert float(row["validation_rank_ic"]) == float(ranks)
        assert fit.model.spec.penalty.group == GROUP[place]
    chosen = int(group.table["validation_log_score"].values.argmax())
    assert group.best is group.fits[chosen]
    assert group.best_penalty == GROUP[chosen]


def test_of_equal_scores_the_most_penalised_is_best_and_nan_never(group: PenaltyPath) -> None:
    scores = xr.zeros_like(group.table["validation_log_score"])
    scores[2] = np.nan
    even = replace(group, table=group.table.assign(validation_log_score=scores))
    assert even.best_penalty == GROUP[1]
    assert even.best is group.fits[1]


def test_the_smooth_penalty_lowers_the_curvature(
    planted: Panel, recipe: NeuralFactor, training: SVIConfig
) -> None:
    path = fit_penalty_path(
        recipe, planted, kind="smooth", values=(0.0, 0.03, 1.0), config=training, seed=3
    )
    found = [curvature(fit, planted) for fit in path.fits]
    assert found[0] > 1.5 * found[1]
    assert found[1] > 10 * found[2]


@pytest.mark.parametrize("kind", ["l1", "l2"])
def test_penalties_on_size_shrink_the_weights_and_the_rest_of_the_spec_stays(
    planted: Panel, recipe: NeuralFactor, training: SVIConfig, kind: str
) -> None:
    own = recipe.spec.model_copy(
        update={"penalty": recipe.spec.penalty.model_copy(update={"smooth": 0.002})}
    )
    short = training.model_copy(update={"n_epochs": 3})
    path = fit_penalty_path(
        NeuralFactor(own), planted, kind=kind, values=(0.0, 0.05), config=short, seed=3
    )
    sizes = [
        sum(float(w.detach().abs().sum()) for w in fit.model.alpha.weights()) for fit in path.fits
    ]
    assert sizes[1] < 0.8 * sizes[0]
    assert [fit.model.spec.penalty.smooth for fit in path.fits] == [0.002, 0.002]
    assert own.penalty.model_dump()[kind] == 0.0


def test_ctrl_c_ends_the_path_with_the_fit_it_interrupts(
    planted: Panel, recipe: NeuralFactor, training: SVIConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nfi_pyro.svi.loop import TrainingLoop

    original, seen = TrainingLoop.run_epoch, []

    def stop(self: TrainingLoop, bar: Any) -> None:
        seen.append(self.epoch)
        if len(seen) > 2:
            raise KeyboardInterrupt
        original(self, bar)

    monkeypatch.setattr(TrainingLoop, "run_epoch", stop)
    short = training.model_copy(update={"n_epochs": 2})
    path = fit_penalty_path(
        recipe, planted, kind="l2", values=(0.0, 0.1, 0.2), config=short, seed=3
    )
    assert [fit.status for fit in path.fits] == ["finished", "interrupted"]
    assert path.table["penalty"].values.tolist() == [0.0, 0.1]
    assert path.table["best_epoch"].values[1] == 0
    assert np.isnan(path.table["validation_log_score"].values[1])
    assert path.best is path.fits[0]


def test_norms_are_in_the_order_of_the_reported_factors() -> None:
    model = NFI(NFISpec(n_features=3, lags=2, n_factors=5, hidden_size=7, n_portfolios=2), seed=1)
    model.canonical.order.copy_(torch.tensor([3, 0, 4, 1, 2]))
    raw = next(part for part in model.modules() if isinstance(part, Perceptron)).factor_norms()
    assert torch.equal(factor_norms(model), raw.detach()[[3, 0, 4, 1, 2]])
    with pytest.raises(SpecError, match="must have a pricing network for norms by factor"):
        factor_norms(torch.nn.Identity())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"kind": "ridge"}, "kind must be one of l1, l2, group, smooth; got 'ridge'"),
        ({"values": ()}, "values must be finite weights >= 0, at least one; got nowhere among 0"),
        ({"values": (0.0, -0.1)}, r"finite weights >= 0, at least one; got -0.1 among 2"),
        ({"values": (float("nan"),)}, "finite weights >= 0, at least one; got nan among 1"),
        ({"values": (0.1, 0.01)}, r"values must strictly increase; got 0.01 after 0.1"),
        ({"values": (0.1, 0.1)}, r"values must strictly increase; got 0.1 after 0.1"),
    ],
)
def test_bad_arguments_are_refused(
    planted: Panel, recipe: NeuralFactor, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(SpecError, match=said):
        fit_penalty_path(recipe, planted, **({"kind": "l1", "values": (0.0,)} | options))


def test_a_model_without_a_penalty_is_refused(planted: Panel) -> None:
    linear = LinearFactor(LinearFactorSpec(n_exposures=FEATURES))
    with pytest.raises(SpecError, match="model whose spec has penalty; got linear_factor"):
        fit_penalty_path(linear, planted, kind="l1", values=(0.0,))
