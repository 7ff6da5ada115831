"""Portfolio and least-squares encoders against Eq. 6-8 written out."""

import pytest
import torch
from torch import Tensor

from nfi_pyro.nets.encoder import (
    LeastSquaresEncoder,
    MappingLayer,
    PortfolioEncoder,
    masked_softmax,
)

DATES, ASSETS, FACTORS, HIDDEN, PORTFOLIOS, FLOOR = 7, 5, 3, 2, 11, 0.01


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.fixture
def observed() -> Tensor:
    mask = torch.rand(DATES, ASSETS, generator=torch.Generator().manual_seed(9)) > 0.3
    mask[2] = False
    return mask


@pytest.fixture
def returns(observed) -> Tensor:
    return torch.where(observed, normal(DATES, ASSETS, seed=4), 0.0)


@pytest.fixture
def encoder(seeded) -> PortfolioEncoder:
    with seeded(5):
        return PortfolioEncoder(HIDDEN, PORTFOLIOS, FACTORS, scale_floor=FLOOR).double()


def test_the_softmax_runs_over_assets(encoder, observed, returns) -> None:
    logits = encoder.logits(normal(DATES, ASSETS, HIDDEN))
    assert logits.shape == (DATES, ASSETS, PORTFOLIOS)
    loc, scale = encoder(logits, returns, observed)
    over_portfolios = 0.0
    for date in range(DATES):
        there = observed[date].nonzero().flatten()
        if not len(there):
            portfolio_return = torch.zeros(PORTFOLIOS, dtype=torch.float64)
        else:
            weights = torch.softmax(logits[date, there], dim=0)
            portfolio_return = returns[date, there] @ weights
            wrong = returns[date, there] @ torch.softmax(logits[date, there], dim=1)
            gap = (wrong - portfolio_return).detach().abs().max()
            over_portfolios = max(over_portfolios, float(gap))
        want_loc = encoder.mapping.loc(portfolio_return)
        raw = encoder.mapping.raw_scale(portfolio_return)
        want_scale = torch.log1p(torch.exp(raw)) + FLOOR
        torch.testing.assert_close(loc[date], want_loc, rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(scale[date], want_scale, rtol=1e-12, atol=1e-14)
    assert over_portfolios > 0.1  # the other axis would have been noticed


def test_masked_softmax_is_exact_zero_where_absent_and_sums_to_one(observed) -> None:
    logits = 50.0 * normal(DATES, ASSETS, PORTFOLIOS, seed=3)
    weights = masked_softmax(logits, observed.unsqueeze(-1), dim=1)
    assert (weights[~observed] == 0.0).all()
    expected = observed.any(1).double()[:, None].expand(DATES, PORTFOLIOS)
    torch.testing.assert_close(weights.sum(1), expected, rtol=0, atol=1e-14)
    one = masked_softmax(logits[:1], torch.ones(1, ASSETS, 1, dtype=torch.bool), dim=1)
    torch.testing.assert_close(one, torch.softmax(logits[:1], dim=1), rtol=0, atol=0)


def test_portfolios_ignore_what_was_not_observed(encoder, observed, returns) -> None:
    logits = encoder.logits(normal(DATES, ASSETS, HIDDEN))
    before = encoder(logits, returns, observed)
    other_logits = torch.where(observed.unsqueeze(-1), logits, logits + 1e4)
    other_returns = torch.where(observed, returns, 1e6)
    after = encoder(other_logits, other_returns, observed)
    assert all(torch.equal(*pair) for pair in zip(before, after, strict=True))


def test_an_empty_date_maps_portfolio_returns_of_zero(encoder, observed, returns) -> None:
    logits = encoder.logits(normal(DATES, ASSETS, HIDDEN)).requires_grad_()
    loc, scale = encoder(logits, returns, observed)
    torch.testing.assert_close(loc[2], encoder.mapping.loc.bias, rtol=0, atol=1e-15)
    (gradient,) = torch.autograd.grad(loc.sum() + scale.sum(), logits)
    assert torch.isfinite(gradient).all()


def least_squares(seeded, hidden_size: int) -> LeastSquaresEncoder:
    with seeded(6):
        return LeastSquaresEncoder(hidden_size, FACTORS, scale_floor=FLOOR).double()


def test_port_variant_is_the_ridge_regression_on_the_observed_assets(
    seeded, observed, returns
) -> None:
    encoder, hidden = least_squares(seeded, HIDDEN), normal(DATES, ASSETS, HIDDEN, seed=8)
    loc, _ = encoder(hidden, returns, observed)
    for date in observed.any(1).nonzero().flatten().tolist():
        there = observed[date]
        e, y = hidden[date, there], returns[date, there]
        gram = e.T @ e
        ridge = 1e-3 * gram.diagonal().mean() * torch.eye(HIDDEN, dtype=torch.float64)
        # Ridge as ordinary least squares on rows appended to e.
        rows = torch.cat([e, torch.linalg.cholesky(ridge).T])
        target = torch.cat([y, torch.zeros(HIDDEN, dtype=torch.float64)])
        coefficients = torch.linalg.pinv(rows) @ target
        want = encoder.mapping.loc(coefficients)
        torch.testing.assert_close(loc[date], want, rtol=1e-9, atol=1e-12)


def test_port_variant_is_close_to_pinv_with_many_assets(seeded) -> None:
    encoder, hidden = least_squares(seeded, HIDDEN), normal(1, 101, HIDDEN, seed=8)
    returns = normal(1, 101, seed=2)
    everything = torch.ones(1, 101, dtype=torch.bool)
    loc, _ = encoder(hidden, returns, everything)
    want = encoder.mapping.loc(torch.linalg.pinv(hidden[0]) @ returns[0])
    # Shrinkage by 1e-3 of the mean diagonal, over a smallest eigenvalue of at least half of it.
    slack = 6e-3 * float((want - encoder.mapping.loc.bias).detach().abs().max())
    torch.testing.assert_close(loc[0], want, rtol=0, atol=slack)


def test_port_variant_survives_fewer_assets_than_hidden_units_and_empty_dates(
    seeded, observed, returns
) -> None:
    encoder, hidden = least_squares(seeded, 13), normal(DATES, ASSETS, 13).requires_grad_()
    loc, scale = encoder(hidden, returns, observed)
    assert torch.isfinite(loc).all()
    torch.testing.assert_close(loc[2], encoder.mapping.loc.bias, rtol=0, atol=1e-15)
    (gradient,) = torch.autograd.grad(loc.sum() + scale.sum(), hidden)
    assert torch.isfinite(gradient).all()
    assert (gradient[~observed] == 0).all()


def test_port_variant_ignores_what_was_not_observed(seeded, observed, returns) -> None:
    encoder, hidden = least_squares(seeded, HIDDEN), normal(DATES, ASSETS, HIDDEN)
    before = encoder(hidden, returns, observed)
    other = torch.where(observed.unsqueeze(-1), hidden, 1e6)
    after = encoder(other, torch.where(observed, returns, -1e6), observed)
    assert all(torch.equal(*pair) for pair in zip(before, after, strict=True))


def test_mapping_scale_keeps_its_floor(seeded) -> None:
    with seeded(1):
        mapping = MappingLayer(PORTFOLIOS, FACTORS, scale_floor=FLOOR).double()
    with torch.no_grad():
        mapping.raw_scale.bias.fill_(-1e4)
        mapping.raw_scale.weight.zero_()
    _, scale = mapping(normal(DATES, PORTFOLIOS))
    assert torch.equal(scale, torch.full_like(scale, FLOOR))
