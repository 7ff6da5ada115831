"""Chains of transforms: each step against qlib's formula in pandas, order, blocks, and JSON."""

import json
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nfi_pyro.data.training.column_statistics import ArrayBlocks
from nfi_pyro.data.training.transform_chain import (
    DEFAULT_STEPS,
    TRANSFORMS,
    TransformChain,
    check_steps,
)
from nfi_pyro.data.training.transforms import RobustZScore
from nfi_pyro.errors import PanelError, ShapeError, SpecError
from nfi_pyro.svi import SVIConfig

DATES, ASSETS, FEATURES = 7, 5, 3
NAMES = ("a", "b", "c")
# float32 results of statistics in float64
RTOL, ATOL = 3e-5, 3e-6


def drawn(seed: int = 0, dates: int = DATES, assets: int = ASSETS) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(dates, assets, FEATURES)).astype(np.float32)
    values[..., 1] = np.round(values[..., 1])  # ties
    values[rng.random(values.shape) < 0.1] = np.nan
    return values


def everyone(values: np.ndarray) -> np.ndarray:
    return np.ones(values.shape[:2], dtype=bool)


def chain_of(values: np.ndarray, *steps: object, mask: np.ndarray | None = None) -> TransformChain:
    counts = everyone(values) if mask is None else mask
    return TransformChain.fit(list(steps), ArrayBlocks(values, counts, 3), NAMES)  # type: ignore[arg-type]


def by_date(values: np.ndarray, rule: Callable[[pd.Series], pd.Series]) -> np.ndarray:
    """Apply a rule to every feature of every date, as qlib's groupby("datetime") does."""
    out = np.empty(values.shape)
    for date in range(values.shape[0]):
        for column in range(values.shape[2]):
            with np.errstate(divide="ignore", invalid="ignore"):
                cells = pd.Series(values[date, :, column].astype(np.float64))
                out[date, :, column] = rule(cells)
    return out


def robust(x: pd.Series) -> pd.Series:
    x = x - x.median()
    mad = x.abs().median()
    return (x / mad / 1.4826).clip(-3, 3)


def zscore_of_all(values: np.ndarray) -> np.ndarray:
    cells = values.reshape(-1, FEATURES).astype(np.float64)
    return (values - np.nanmean(cells, axis=0)) / np.nanstd(cells, axis=0)


def robust_of_all(values: np.ndarray) -> np.ndarray:
    cells = values.reshape(-1, FEATURES).astype(np.float64)
    center = np.nanmedian(cells, axis=0)
    scale = (np.nanmedian(np.abs(cells - center), axis=0) + 1e-12) * 1.4826
    return np.clip((values - center) / scale, -3, 3)


def min_max_of_all(values: np.ndarray) -> np.ndarray:
    cells = values.reshape(-1, FEATURES).astype(np.float64)
    least, most = np.nanmin(cells, axis=0), np.nanmax(cells, axis=0)
    return (values - least) / (most - least)


# qlib 0.9.7, data/dataset/processor.py, formula by formula
ORACLES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "robust_zscore": robust_of_all,
    "zscore": zscore_of_all,
    "min_max": min_max_of_all,
    "cs_zscore": lambda values: by_date(values, lambda x: (x - x.mean()) / x.std()),
    "cs_robust_zscore": lambda values: by_date(values, robust),
    "cs_rank": lambda values: by_date(values, lambda x: (x.rank(pct=True) - 0.5) * 3.46),
    "fill": lambda values: np.where(np.isnan(values), 0.0, values),
    "cs_fill": lambda values: by_date(values, lambda x: x.fillna(x.mean())),
    "process_inf": lambda values: by_date(
        values, lambda x: x.replace([np.inf, -np.inf], x[~np.isinf(x)].mean())
    ),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_every_transform_is_qlibs_formula_when_all_cells_count(name) -> None:
    values = drawn(seed=5, dates=11, assets=31)
    if name == "process_inf":
        values[2, 3], values[2, 4, 0], values[6, 1, 2] = np.inf, -np.inf, np.inf
    got = chain_of(values, name).apply(values, everyone(values))
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, ORACLES[name](values), rtol=RTOL, atol=ATOL)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_cells_that_do_not_count_change_nothing_but_themselves(name) -> None:
    values, mask = drawn(seed=1), np.random.default_rng(3).random((DATES, ASSETS)) > 0.4
    fitted = chain_of(values, name, mask=mask)
    before = fitted.apply(values, mask)
    values[~mask] *= 7
    after = chain_of(values, name, mask=mask).apply(values, mask)
    np.testing.assert_array_equal(after[mask], before[mask])


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_date_is_transformed_by_itself_whatever_the_block(name) -> None:
    values, mask = drawn(seed=2), np.random.default_rng(4).random((DATES, ASSETS)) > 0.2
    fitted = chain_of(values, name, mask=mask)
    before = values.copy()
    whole = fitted.apply(values, mask)
    parts = [fitted.apply(values[t : t + 1], mask[t : t + 1]) for t in range(DATES)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    np.testing.assert_array_equal(values, before)  # and the input is left alone


@pytest.mark.parametrize("name", [name for name in TRANSFORMS if name.startswith("cs_")])
def test_an_asset_that_does_not_count_is_mapped_like_its_equal_that_does(name) -> None:
    values, mask = drawn(seed=8, assets=13), np.ones((DATES, 13), dtype=bool)
    mask[:, 12] = False
    values[:, 12] = values[:, 4]
    out = chain_of(values, name, mask=mask).apply(values, mask)
    np.testing.assert_array_equal(out[:, 12], out[:, 4])


def test_ranks_of_assets_that_do_not_count_lie_between_those_of_their_neighbours() -> None:
    values = np.array([[[1.0], [2.0], [3.0], [4.0], [2.5], [0.0], [9.0]]], dtype=np.float32)
    mask = np.array([[True] * 4 + [False] * 3])
    chain = TransformChain.fit(["cs_rank"], ArrayBlocks(values, mask), ("a",))
    shares = np.array([1 / 4, 2 / 4, 3 / 4, 4 / 4, 2.5 / 4, 0.5 / 4, 4.5 / 4])
    np.testing.assert_allclose(chain.apply(values, mask)[0, :, 0], (shares - 0.5) * 3.46, rtol=1e-6)


def test_dates_without_enough_assets_are_nan() -> None:
    values = drawn(seed=9)
    values[0, 1:], values[0, 0] = np.nan, 3.0  # one asset
    values[1] = np.nan  # none
    values[2] = 5.0  # all equal
    values[3, :, 0], values[3, 0, 0] = 1.0, np.inf  # all equal but for one that is unknown
    mask = everyone(values)
    mask[4] = False  # nobody counts
    fitted = {name: chain_of(values, name, mask=mask) for name in TRANSFORMS}
    scaled = fitted["cs_zscore"].apply(values, mask)
    assert np.isnan(scaled[[0, 1, 2, 4]]).all()
    assert np.isnan(scaled[3, :, 0]).all()
    robust_scaled = fitted["cs_robust_zscore"].apply(values, mask)
    assert np.isnan(robust_scaled[[0, 1, 2, 4]]).all()
    ranked = fitted["cs_rank"].apply(values, mask)
    assert ranked[0, 0] == pytest.approx(0.5 * 3.46, rel=1e-6)  # qlib: rank 1 of 1
    assert np.isnan(ranked[[1, 4]]).all()
    assert np.isnan(ranked[3, 0, 0])
    np.testing.assert_allclose(ranked[2], (3 / 5 - 0.5) * 3.46, rtol=1e-6)
    filled = fitted["cs_fill"].apply(values, mask)
    assert (filled[0] == 3.0).all()
    assert np.isnan(filled[1]).all()
    assert (fitted["fill"].apply(values, mask)[1] == 0).all()
    values[1, 2] = np.inf
    assert np.isnan(fitted["process_inf"].apply(values, mask)[1]).all()


def test_the_default_chain_is_the_robust_z_score_to_the_bit() -> None:
    values, mask = drawn(seed=6), np.random.default_rng(7).random((DATES, ASSETS)) > 0.2
    fitted = chain_of(values, *DEFAULT_STEPS, mask=mask)
    alone = RobustZScore.fit(values, mask, NAMES)
    # the formula in float32, in this order of operations
    formula = np.clip(
        (values - alone.center.astype(np.float32)) / alone.scale.astype(np.float32), -3, 3
    )
    np.testing.assert_array_equal(fitted.apply(values, mask), alone.transform(values))
    np.testing.assert_array_equal(fitted.apply(values, mask), formula)


def test_a_step_is_fitted_on_what_the_steps_before_return() -> None:
    values, mask = drawn(seed=3), everyone(drawn())
    both = chain_of(values, "cs_rank", {"name": "zscore"})
    ranks = chain_of(values, "cs_rank").apply(values, mask)
    np.testing.assert_array_equal(
        both.apply(values, mask), chain_of(ranks, "zscore").apply(ranks, mask)
    )
    assert (both.apply(values, mask) != chain_of(values, "zscore").apply(values, mask)).any()
    filled_last = chain_of(values, "zscore", "fill").apply(values, mask)
    filled_first = chain_of(values, "fill", "zscore").apply(values, mask)
    assert (filled_last[np.isnan(values)] == 0).all()
    assert (filled_first[np.isnan(values)] != 0).any()


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    st.lists(st.sampled_from(sorted(TRANSFORMS)), max_size=3),
    st.integers(1, 2 * DATES),
    st.integers(0, 1000),
)
def test_neither_the_cut_nor_a_later_date_changes_a_fitted_bit(steps, size, seed) -> None:
    values, mask = drawn(seed, 23, 11), np.random.default_rng(seed).random((23, 11)) > 0.2
    train = slice(0, 17)
    one = TransformChain.fit(steps, ArrayBlocks(values[train], mask[train], 17), NAMES)
    values[17:], mask[17:] = 1e6, False
    two = TransformChain.fit(steps, ArrayBlocks(values[train], mask[train], size), NAMES)
    assert one.as_dict() == two.as_dict()
    np.testing.assert_array_equal(
        one.apply(values[train], mask[train]), two.apply(values, mask)[train]
    )


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_chain_survives_json_to_the_bit(name) -> None:
    values, mask = drawn(seed=10), everyone(drawn())
    fitted = chain_of(values, name, {"name": "fill", "value": 0.1})
    back = TransformChain.from_dict(json.loads(json.dumps(fitted.as_dict())))
    assert back.as_dict() == fitted.as_dict()
    assert back.describe() == fitted.describe()
    assert back.features == NAMES
    np.testing.assert_array_equal(back.apply(values, mask), fitted.apply(values, mask))


def test_options_reach_their_transform() -> None:
    values, mask = drawn(seed=4), everyone(drawn())
    for name in ("robust_zscore", "cs_robust_zscore"):
        narrow = chain_of(values, {"name": name, "clip": 0.5})
        assert float(np.nanmax(np.abs(narrow.apply(values, mask)))) == 0.5
        assert narrow.describe().endswith("clipped at +-0.5")
    filled = chain_of(values, {"name": "fill", "value": -2.5}).apply(values, mask)
    assert (filled[np.isnan(values)] == -2.5).all()


def test_an_empty_chain_leaves_features_as_they_are() -> None:
    values = drawn()
    chain = chain_of(values)
    np.testing.assert_array_equal(chain.apply(values, everyone(values)), values)
    assert chain.describe() == "features as they are"


def test_a_chain_describes_itself_step_by_step() -> None:
    lines = chain_of(drawn(), "robust_zscore", "fill").describe().splitlines()
    assert lines == [
        "robust_zscore: training median and MAD per feature, clipped at +-3",
        "fill: NaN becomes 0, and so known",
    ]


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (["robust"], "must be one of robust_zscore, zscore, .*; got 'robust'"),
        ([7], "must be a name or a mapping with a name; got 7"),
        ([{"clip": 3.0}], "must be a name or a mapping with a name"),
        ("zscore", "must be a sequence of steps; got 'zscore'"),
        ([{"name": "zscore", "clip": 3.0}], r"options of zscore must be among \[\]; got clip"),
        (
            [{"name": "fill", "method": 1, "with": 2}],
            r"options of fill must be among \['value'\]; got method, with",
        ),
    ],
)
def test_unknown_steps_and_options_are_refused(steps, message) -> None:
    with pytest.raises(SpecError, match=message):
        check_steps(steps)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "0", True])
def test_a_filling_value_that_is_no_finite_number_is_refused(value) -> None:
    with pytest.raises(SpecError, match=r"value must be a finite number; got .* at fill"):
        chain_of(drawn(), {"name": "fill", "value": value})


@pytest.mark.parametrize("clip", [0.0, -1, "3"])
def test_a_clip_that_is_no_positive_number_is_refused(clip) -> None:
    with pytest.raises(SpecError, match=r"clip must be a number > 0; got .* at cs_robust_zscore"):
        chain_of(drawn(), {"name": "cs_robust_zscore", "clip": clip})


def test_blocks_that_can_be_read_only_once_are_refused() -> None:
    def once() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        yield drawn(), everyone(drawn())

    with pytest.raises(SpecError, match=r"must start again at every iter.*; got a generator"):
        TransformChain.fit(DEFAULT_STEPS, once(), NAMES)


def test_arrays_that_do_not_fit_are_refused() -> None:
    values = drawn()
    chain = chain_of(values, "cs_rank")
    with pytest.raises(ShapeError, match=r"must have 3 columns \(a, b, c, ...\); got 2"):
        chain.apply(values[..., :2], everyone(values))
    with pytest.raises(ShapeError, match=r"mask must have the shape .*\(7, 5\); got \(7, 2\)"):
        chain.apply(values, everyone(values)[:, :2])


def test_other_features_than_those_of_the_fit_are_refused() -> None:
    chain = chain_of(drawn())
    chain.require_features(["a", "b", "c"])
    with pytest.raises(PanelError, match=r"in order; missing \['b'\], unknown \['z'\]"):
        chain.require_features(["a", "z", "c"])
    with pytest.raises(PanelError, match=r"in order; missing \[\], unknown \[\]"):
        chain.require_features(["b", "a", "c"])


@pytest.mark.parametrize(
    ("step", "match"),
    [
        ({"name": "robust_zscore", "clip": -1}, r"clip must be a number > 0; got -1 at robust"),
        ({"name": "cs_robust_zscore", "clip": "3"}, "clip must be a number > 0; got '3'"),
        ({"name": "fill", "value": "zero"}, "value must be a finite number; got 'zero'"),
    ],
)
def test_option_values_are_checked_when_a_configuration_is_read(step, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        SVIConfig(transforms=(step,))
