"""Student-t as a mixture of normals: exact total and variance, and how far the density holds."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm, t

from nfi_pyro.distributions.scale_mixture import N_COMPONENTS, student_t_mixture
from nfi_pyro.errors import SpecError


def density(x: np.ndarray, nu: float, n_components: int = N_COMPONENTS) -> np.ndarray:
    weights, scales = student_t_mixture(nu, n_components)
    return norm.pdf(np.asarray(x)[..., None], 0.0, scales) @ weights


@pytest.mark.parametrize("n_components", [2, 8, 13])
@pytest.mark.parametrize("nu", [2.1, 3.0, 4.0, 5.5, 30.0, 200.0])
def test_weights_sum_to_one_and_the_variance_is_the_ts(nu: float, n_components: int) -> None:
    weights, scales = student_t_mixture(nu, n_components)
    assert weights.shape == scales.shape == (n_components,)
    assert (weights > 0).all()
    assert (np.diff(scales) > 0).all()
    assert weights.sum() == pytest.approx(1.0, rel=1e-14)
    assert weights @ scales**2 == pytest.approx(nu / (nu - 2.0), rel=1e-12)


@pytest.mark.parametrize(
    ("nu", "within_3", "within_5", "within_8"),
    [
        (3.0, 0.055, 0.104, 1.11),
        (4.0, 0.0182, 0.088, 0.57),
        (5.0, 0.0074, 0.071, 0.354),
        (10.0, 0.00029, 0.0176, 0.259),
    ],
)
def test_the_density_is_as_close_as_the_docstring_says(
    nu: float, within_3: float, within_5: float, within_8: float
) -> None:
    """Measured against scipy; the bounds are those of the table, and none is slack."""
    x = np.linspace(0.0, 8.0, 8001)
    error = np.abs(density(x, nu) / t.pdf(x, nu) - 1.0)
    for reach, bound in ((3.0, within_3), (5.0, within_5), (8.0, within_8)):
        worst = error[x <= reach].max()
        assert 0.97 * bound < worst <= bound


@pytest.mark.parametrize(
    ("nu", "start", "beyond"),
    [(3.0, 14.7, 7e-4), (4.0, 11.4, 3e-4), (5.0, 10.2, 2e-4), (10.0, 8.7, 6e-6)],
)
def test_the_gaussian_tail_begins_where_the_docstring_says(
    nu: float, start: float, beyond: float
) -> None:
    x = np.linspace(0.0, 30.0, 30001)
    below = density(x, nu) < 0.5 * t.pdf(x, nu)
    first = x[np.argmax(below)]
    assert below[x >= first].all()
    assert first == pytest.approx(start, abs=0.05)
    assert 2.0 * t.sf(first, nu) == pytest.approx(beyond, rel=0.25)


def test_more_components_come_closer() -> None:
    x = np.linspace(0.0, 8.0, 801)
    worst = [np.abs(density(x, 4.0, n) / t.pdf(x, 4.0) - 1.0).max() for n in (4, 8, 16, 24)]
    assert worst == sorted(worst, reverse=True)
    assert worst[-1] < 0.05


def test_it_is_a_density_with_the_variance_it_claims() -> None:
    total = quad(lambda x: float(density(np.array(x), 4.0)), -60, 60, limit=200)[0]
    spread = quad(lambda x: float(x**2 * density(np.array(x), 4.0)), -60, 60, limit=200)[0]
    assert total == pytest.approx(1.0, rel=1e-9)
    assert spread == pytest.approx(2.0, rel=1e-9)


def test_many_degrees_of_freedom_are_nearly_normal() -> None:
    x = np.linspace(-4.0, 4.0, 101)
    np.testing.assert_allclose(density(x, 200.0), t.pdf(x, 200.0), rtol=1e-6)


@pytest.mark.parametrize("nu", [2.0, 0.5, -1.0, float("nan")])
def test_a_t_without_variance_is_refused(nu: float) -> None:
    with pytest.raises(SpecError, match=r"degrees_of_freedom must be > 2.*; got .*Use 4"):
        student_t_mixture(nu)
