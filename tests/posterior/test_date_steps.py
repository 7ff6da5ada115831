"""Every k-th date of a range: the same numbers as on all dates, of those dates alone."""

import numpy as np
import pytest

from nfi_pyro.data.panel import Panel
from nfi_pyro.errors import SpecError
from nfi_pyro.posterior import forecast
from nfi_pyro.posterior.blocks import open_pass, read_range
from nfi_pyro.posterior.importance import importance_weights
from nfi_pyro.svi import SVIFit


@pytest.mark.parametrize("step", [2, 3, 7])
def test_a_step_visits_every_kth_date_from_the_first(fit: SVIFit, panel: Panel, step: int) -> None:
    first, last = (str(panel["date"].values[k])[:10] for k in (5, 40))
    every = forecast(fit, panel, dates=(first, last))
    some = forecast(fit, panel, dates=(first, last, step))
    np.testing.assert_array_equal(some.data["date"].values, every.data["date"].values[::step])
    np.testing.assert_array_equal(some.data["entered"], every.data["entered"][::step])
    np.testing.assert_allclose(some.data["loc"], every.data["loc"][::step], rtol=1e-5, atol=1e-9)


def test_the_bound_of_a_date_does_not_depend_on_its_neighbours(fit: SVIFit, panel: Panel) -> None:
    every = importance_weights(fit, panel, draws=2)
    some = importance_weights(fit, panel, draws=2, dates=(None, None, 3))
    np.testing.assert_array_equal(some.n_observed, every.n_observed[::3])
    np.testing.assert_allclose(some.elbo, every.elbo[::3], rtol=1e-5)


def test_a_pair_is_a_step_of_one_and_a_step_below_it_is_refused(fit: SVIFit, panel: Panel) -> None:
    assert read_range(None) == (None, None, 1)
    assert read_range(("2020-01-01", None)) == ("2020-01-01", None, 1)
    with pytest.raises(SpecError, match="k >= 1; got 0"):
        open_pass(fit, panel, (None, None, 0))


@pytest.mark.parametrize(
    ("dates", "said"),
    [
        ("2024-01-31", "must be a first and a last date; got '2024-01-31'"),
        (("2024-01-31",), "must be a first and a last date"),
        (("yesterday-ish", None), "must be of dates; got 'yesterday-ish'"),
    ],
)
def test_what_is_no_range_is_refused(dates, said) -> None:
    with pytest.raises(SpecError, match=said):
        read_range(dates)


@pytest.mark.parametrize("step", [1, 3])
def test_one_date_of_a_pass_is_a_pass_of_that_date(fit: SVIFit, panel: Panel, step: int) -> None:
    visit = open_pass(fit, panel, (None, None, step))
    for date in visit.dates[[0, 5, -1]]:
        np.testing.assert_array_equal(visit.on(date).dates, [date])
