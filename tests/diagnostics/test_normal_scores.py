import math

import numpy as np
import pytest

from nfi_pyro.diagnostics.normal_scores import spread_interval


@pytest.mark.parametrize("dof", [5.0, math.inf])
def test_intervals_cover_the_spread_of_normal_and_of_heavy_tailed_scores(dof: float) -> None:
    rng = np.random.default_rng(0)
    n_series, n = 1500, 120
    draws = rng.standard_normal((n_series, n))
    truth = 1.0
    if math.isfinite(dof):
        draws /= np.sqrt(rng.chisquare(dof, (n_series, n)) / dof)
        truth = math.sqrt(dof / (dof - 2))
    bounds = np.array([spread_interval(row) for row in draws])
    covered = ((bounds[:, 1] < truth) & (truth < bounds[:, 2])).mean()
    # Bonett's interval is approximate: a shortfall of three points is usual at a t law of 5.
    assert covered == pytest.approx(0.95, abs=0.035 + 4 * math.sqrt(0.95 * 0.05 / n_series))
    chi_square_width = 2 * 1.96 / math.sqrt(2 * n)
    if math.isinf(dof):
        width = np.median(np.log(bounds[:, 2] / bounds[:, 1]))
        assert width == pytest.approx(chi_square_width, rel=0.05)


def test_degenerate_scores_have_limits() -> None:
    assert all(math.isnan(value) for value in spread_interval(np.array([0.3])))
    spread, lower, upper = spread_interval(np.arange(5.0))
    assert spread == pytest.approx(np.std(np.arange(5.0), ddof=1))
    assert math.isnan(lower)
    assert math.isnan(upper)
    assert spread_interval(np.append(np.arange(20.0), np.inf)) == (math.inf,) * 3
    assert spread_interval(np.ones(20))[0] == 0.0
    assert math.isnan(spread_interval(np.ones(20))[1])
