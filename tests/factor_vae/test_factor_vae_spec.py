"""The spec says no to what cannot be built."""

import pytest
from pydantic import ValidationError

from nfi_pyro.errors import SpecError
from nfi_pyro.factor_vae import FactorVAE, FactorVAESpec


def test_defaults_are_those_of_the_card() -> None:
    spec = FactorVAESpec()
    assert (spec.n_features, spec.lags, spec.variant) == (None, 20, "full")
    assert (spec.hidden_size, spec.n_factors, spec.n_portfolios) == (64, 16, 64)


def test_an_unknown_key_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"n_factor\n.*Extra inputs are not permitted"):
        FactorVAESpec.model_validate({"n_factor": 3})


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("n_features", 0, "greater than or equal to 1"),
        ("lags", 0, "greater than or equal to 1"),
        ("projection_size", 0, "greater than or equal to 1"),
        ("hidden_size", 0, "greater than or equal to 1"),
        ("n_factors", -1, "greater than or equal to 1"),
        ("n_portfolios", 0, "greater than or equal to 1"),
        ("alpha_hidden_size", 0, "greater than or equal to 1"),
        ("prior_hidden_size", 0, "greater than or equal to 1"),
        ("variant", "posterior", "'full', 'prior' or 'port'"),
        ("negative_slope", -0.1, "greater than or equal to 0"),
        ("negative_slope", 1.0, "less than 1"),
        ("scale_floor", 0.0, "greater than 0"),
        ("scale_floor", 1.0, "less than 1"),
        ("lags", 2.5, "valid integer"),
        ("scale_floor", float("nan"), "less than 1"),
    ],
)
def test_a_value_out_of_range_is_refused(key: str, value: object, message: str) -> None:
    with pytest.raises(ValidationError, match=f"(?s){key}.*{message}"):
        FactorVAESpec.model_validate({key: value})


def test_a_spec_is_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        FactorVAESpec().lags = 3


def test_a_model_needs_the_number_of_features() -> None:
    with pytest.raises(SpecError, match=r"n_features must be the panel's .*; got None\. Set it"):
        FactorVAE(FactorVAESpec())
