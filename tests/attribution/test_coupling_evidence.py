"""The regression behind the test of couplings, its p-values, and what they allow for."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import false_discovery_control
from statsmodels.stats.multitest import multipletests

from nfi_pyro.attribution.couplings.coupling_evidence import (
    DateTerms,
    PooledTerms,
    flip_p_values,
    least_assets,
    pool_dates,
    weigh_date,
)
from nfi_pyro.attribution.couplings.coupling_products import standardise

PAIRS = np.array([[0, 1], [0, 2], [1, 2]])
Label = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def pool(found: list[DateTerms]) -> PooledTerms:
    gram = np.sum([date.gram for date in found], axis=0)
    return pool_dates(gram, np.stack([date.score for date in found]), len(found[0].premia))


def products(beta: np.ndarray) -> np.ndarray:
    return beta[:, PAIRS[:, 0]] * beta[:, PAIRS[:, 1]]


def weigh(beta: np.ndarray, label: np.ndarray) -> DateTerms:
    found = weigh_date(beta, label, PAIRS)
    assert found is not None
    return found


def correlated(rng: np.random.Generator, n_dates: int, n_assets: int) -> np.ndarray:
    """Return exposures (date, asset, factor) with correlations of 0.7, 0.5 and 0.3."""
    root = np.linalg.cholesky([[1.0, 0.7, 0.5], [0.7, 1.0, 0.3], [0.5, 0.3, 1.0]])
    return np.asarray(rng.normal(size=(n_dates, n_assets, 3)) @ root.T)


def study(label: Label, n_dates: int = 29, n_assets: int = 31, n_studies: int = 100) -> np.ndarray:
    """Return p-values (study, pair) of simulated histories."""
    found = []
    for seed in range(n_studies):
        rng = np.random.default_rng(seed)
        beta = correlated(rng, n_dates, n_assets)
        parts = pool([weigh(own, label(own, rng)) for own in beta]).parts
        found.append(flip_p_values(parts, 199, rng))
    return np.array(found)


def test_it_is_one_weighted_regression_over_dates() -> None:
    """A free intercept and free slopes on every date, one coefficient for all of each term."""
    rng = np.random.default_rng(3)
    beta = correlated(rng, 5, 23)
    label = rng.normal(size=(5, 23)) * np.array([1.0, 3.0, 0.3, 2.0, 0.7])[:, None]
    found = pool([weigh(*one) for one in zip(beta, label, strict=True)])
    rows, values, weights = [], [], []
    for date, (own, returns) in enumerate(zip(beta, label, strict=True)):
        standard = standardise(own)
        linear = np.column_stack([np.ones(23), own])
        block = np.zeros((23, 20))
        block[:, 4 * date : 4 * date + 4] = linear
        terms = np.column_stack([standard**2, products(standard)])
        left = returns - linear @ np.linalg.lstsq(linear, returns)[0]
        rows.append(np.column_stack([block, terms]))
        values.append(returns)
        weights.append(np.full(23, 19.0 / (left @ left)))
    root = np.sqrt(np.concatenate(weights))
    design = np.concatenate(rows) * root[:, None]
    wanted = np.linalg.lstsq(design, np.concatenate(values) * root)[0]
    np.testing.assert_allclose(found.parts.sum(axis=0), wanted[-3:], rtol=1e-9)
    for place in range(3):  # share: 1 - R^2 of a product, less the linear part, on the other terms
        column = design.shape[1] - 3 + place
        linear, terms = design[:, :20], np.delete(design[:, 20:], column - 20, axis=1)
        own = design[:, column] - linear @ np.linalg.lstsq(linear, design[:, column])[0]
        both = np.column_stack([linear, terms])
        left = design[:, column] - both @ np.linalg.lstsq(both, design[:, column])[0]
        assert found.share[place] == pytest.approx((left @ left) / (own @ own), rel=1e-9)


def test_premia_are_those_of_a_regression_on_standardised_exposures() -> None:
    rng = np.random.default_rng(5)
    beta, label = correlated(rng, 1, 19)[0], rng.normal(size=19)
    gap = (beta - beta.mean(axis=0)) / beta.std(axis=0)
    design = np.column_stack([np.ones(19), gap])
    found = weigh(beta, label)
    np.testing.assert_allclose(found.premia, np.linalg.lstsq(design, label)[0][1:], rtol=1e-10)
    assert found.n_free == 15
    twice = np.column_stack([beta[:, 0], 2.0 * beta[:, 0] + 1.0, np.full(19, 3.0)])
    assert weigh(twice, label).premia[1:].tolist() == [0.0, 0.0]
    assert weigh(twice, label).n_free == 17


def test_a_planted_curvature_comes_back_exactly_without_noise() -> None:
    rng = np.random.default_rng(7)
    found = []
    for beta in correlated(rng, 5, 23):
        standard = standardise(beta)
        product = products(standard) @ np.array([0.3, 0.0, -0.1])
        label = 0.2 + beta @ rng.normal(size=3) + 0.7 * standard[:, 1] ** 2 + product
        found.append(weigh(beta, label))
    np.testing.assert_allclose(pool(found).parts.sum(axis=0), [0.3, 0.0, -0.1], atol=1e-12)


def test_labels_that_the_linear_part_explains_say_nothing() -> None:
    beta = correlated(np.random.default_rng(3), 1, 11)[0]
    assert weigh_date(beta, 0.1 + beta @ np.array([1.0, 2.0, 3.0]), PAIRS) is None
    assert weigh_date(beta, np.full(11, 0.01), PAIRS) is None
    assert weigh_date(beta, np.zeros(11), PAIRS) is None


def test_products_that_other_terms_determine_have_no_coefficient() -> None:
    """Two exclusive groups have no product; an exposure given twice makes its product a square."""
    rng = np.random.default_rng(3)
    group = np.arange(17) % 3
    found, told = [], []
    for _ in range(7):
        groups = np.column_stack([group == 0, group == 1, rng.normal(size=17)]).astype(np.float32)
        found.append(weigh(groups.astype(np.float64), rng.normal(size=17)))
        told.append(found[-1].known)
    assert np.all(told, axis=0).tolist() == [False, True, True]
    pooled = pool(found)
    assert np.isfinite(pooled.parts).all(axis=0).tolist() == [False, True, True]
    assert pooled.share[0] == 0.0
    assert (pooled.share[1:] > 0.1).all()
    found = []
    for _ in range(7):
        beta = rng.normal(size=(17, 3))
        beta[:, 1] = 5.0 - 2.0 * beta[:, 0]
        found.append(weigh(beta, rng.normal(size=17)))
    pooled = pool(found)
    assert np.isnan(pooled.parts).all()  # pairs with z2 are one and the same, twice
    assert pooled.share.tolist() == [0.0, 0.0, 0.0]


def test_p_values_are_those_of_every_flip() -> None:
    parts = np.random.default_rng(3).normal(0.3, 1.0, size=(7, 3))
    signs = np.stack(np.meshgrid(*[[-1.0, 1.0]] * 7), -1).reshape(-1, 7)
    every = (np.abs(signs @ parts) >= np.abs(parts.sum(axis=0)) * (1 - 1e-12)).mean(axis=0)
    found = flip_p_values(parts, 40_000, np.random.default_rng(5))
    np.testing.assert_allclose(found, every, atol=4.0 * np.sqrt(0.25 / 40_000))
    same = flip_p_values(parts, 199, np.random.default_rng(5))
    np.testing.assert_array_equal(same, flip_p_values(parts, 199, np.random.default_rng(5)))
    strong = np.abs(np.random.default_rng(7).normal(size=(29, 2))) + 1.0
    assert flip_p_values(strong, 99, np.random.default_rng(5)).tolist() == [0.01, 0.01]
    assert flip_p_values(np.zeros((29, 1)), 99, np.random.default_rng(5)).tolist() == [1.0]


def test_q_values_agree_with_an_oracle() -> None:
    p_value = np.random.default_rng(3).uniform(size=17) ** 2
    wanted = multipletests(p_value, method="fdr_bh")[1]
    np.testing.assert_allclose(false_discovery_control(p_value), wanted, rtol=1e-12)


def test_noise_that_depends_on_exposures_is_no_coupling() -> None:
    """Of 300 p-values 10 percent are at most 0.1: 30, with a standard error of 5.2."""

    def label(beta: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return np.exp(0.7 * beta[:, 0] * beta[:, 1]) * rng.standard_t(5, size=len(beta))

    assert 14 < (study(label) <= 0.1).sum() < 46  # 3 standard errors


def test_a_factor_that_loads_on_the_product_and_has_no_price_is_no_coupling() -> None:
    """Taken as independent, the assets of these dates would reject it in most histories."""
    naive = []

    def label(beta: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        product = np.linalg.qr(np.column_stack([np.ones(len(beta)), beta, products(beta)]))[0][:, 4]
        product = product * len(beta) ** 0.5
        shock = rng.normal(scale=0.7) * product
        naive.append(float(product @ (shock + rng.normal(size=len(beta)))))
        return shock + rng.normal(size=len(beta))

    found = study(label)[:, 0]
    assert (found <= 0.1).sum() <= 19  # of 100: 10, and 3 standard errors of 3.0
    score = np.array(naive).reshape(100, 29).sum(axis=1) / np.sqrt(29 * 31)
    assert (np.abs(score) > 1.645).sum() > 40  # what exchangeable assets would give 10 of


def test_a_bent_but_additive_return_is_no_coupling() -> None:
    def label(beta: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return 0.5 * beta[:, 0] ** 2 + rng.normal(size=len(beta))

    found = study(label)
    assert 14 < (found <= 0.1).sum() < 46


def test_a_coupling_is_not_found_in_its_neighbours() -> None:
    def label(beta: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return 0.4 * beta[:, 0] * beta[:, 1] + rng.normal(size=len(beta))

    found = study(label, n_dates=97, n_studies=50)
    assert (found[:, 0] <= 0.1).all()
    assert (found[:, 1:] <= 0.1).sum() <= 19  # of 100


def test_a_date_needs_assets_for_its_linear_part() -> None:
    assert least_assets(3) == 9
