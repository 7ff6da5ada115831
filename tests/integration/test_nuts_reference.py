"""The guide over the last layers against NUTS, on networks that stand still.

``pytest -m slow -s tests/integration/test_nuts_reference.py`` prints the table of the card: the
guide's posterior standard deviations over NUTS's, the factors' posterior under both, and how much
evidence the guide's bound leaves.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from nfi_pyro.data.training.windows import Outcome
from nfi_pyro.distributions.heads import HeadPosterior, HeadSpec
from nfi_pyro.distributions.mixture_posterior import factor_posterior
from nfi_pyro.errors import SpecError
from nfi_pyro.factor_vae import FactorVAE, FactorVAESpec
from nfi_pyro.factor_vae.model import FactorVAEContext
from nfi_pyro.nets.predictor import Trunk
from nfi_pyro.svi.reference import fit_heads, log_evidence, sample_heads_nuts

Kind = Literal["full", "low_rank"]
DATES, ASSETS, HIDDEN, FACTORS = 40, 20, 6, 2
ALPHA = "alpha.loc.weight"


@dataclass(frozen=True)
class Problem:
    """A one-component model on fixed inputs, and returns that its own law made."""

    model: FactorVAE
    context: FactorVAEContext
    outcome: Outcome

    @property
    def heads(self) -> HeadPosterior:
        """The posterior that is tested."""
        assert self.model.heads is not None
        return self.model.heads

    def arguments(self) -> tuple[Any, Any, Outcome]:
        """What the functions under test take."""
        return self.model, self.context, self.outcome


def make_problem(kind: Kind, n_dates: int = DATES, n_assets: int = ASSETS) -> Problem:
    """Return inputs with correlation .5 between features, true weights drawn from their prior."""
    spec = FactorVAESpec(
        n_features=3,
        lags=1,
        projection_size=3,
        hidden_size=HIDDEN,
        n_factors=FACTORS,
        n_portfolios=3,
        alpha_hidden_size=HIDDEN,
        prior_hidden_size=4,
        variant="prior",
        heads=HeadSpec(kind=kind, rank=4, start_scale=0.1, price_scale=0.3),
    )
    model = FactorVAE(spec, seed=3).double()
    generator = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    shared = normal(n_dates, n_assets, 1)
    hidden = math.sqrt(0.5) * (normal(n_dates, n_assets, HIDDEN) + shared)
    trunk = Trunk(hidden, normal(n_dates, FACTORS, HIDDEN))
    with torch.no_grad():
        model.alpha.hidden.weight.copy_(torch.eye(HIDDEN))
        model.alpha.hidden.bias.zero_()
        names = ("alpha_loc", "specific_scale", "beta", "prior_loc", "prior_scale")
        parts = dict(zip(names, model(trunk), strict=True))
    tradable = torch.ones(n_dates, n_assets, dtype=torch.bool)
    context = FactorVAEContext(
        tradable=tradable,
        **parts,
        encoder_input=hidden[..., :0],
        date_index=torch.arange(n_dates),
        n_dates=n_dates,
        trunk=trunk,
    )
    assert model.heads is not None
    truth = model.heads.draw_prior(1, seed=8)[0]
    truth[-len(model.heads.groups) :] = 0.0  # every group's scale at its prior median
    value = model.law(context, truth).draw(1, seed=5)[0].detach()
    observed = torch.rand(n_dates, n_assets, generator=generator) > 0.1
    return Problem(model, context, Outcome(torch.where(observed, value, 0.0), observed))


def weights_of(heads: HeadPosterior, values: Tensor) -> dict[str, Tensor]:
    """Return each layer's weights and the groups' scales, (draw, weight).

    Weights and scales of groups, not coordinates: w = tau u is what the data speak of.
    """
    drawn = [heads.weights(value) for value in values]
    found = {name: torch.stack([one[name].flatten() for one in drawn]) for name in heads.names}
    return found | {"group scales": heads.scales(values)}


@pytest.fixture(scope="module")
def full() -> Problem:
    problem = make_problem("full")
    fit_heads(*problem.arguments(), steps=2_500, particles=1)
    return problem


@pytest.fixture(scope="module")
def reference(full: Problem) -> Tensor:
    return sample_heads_nuts(*full.arguments(), draws=400, warmup=150, seed=2)


def standard_error(draws: Tensor) -> float:
    """Return the relative error of a standard deviation from these draws."""
    import arviz as az

    effective = float(az.ess({"x": draws.numpy()[None]}, method="sd")["x"].min())
    return 1.0 / math.sqrt(2.0 * effective)


@pytest.mark.slow
def test_the_guides_spread_is_that_of_nuts(full: Problem, reference: Tensor) -> None:
    own = weights_of(full.heads, full.heads.draw(4_000, seed=0))
    exact = weights_of(full.heads, reference)
    print(f"\nguide / NUTS standard deviation, {full.heads.size} coordinates")
    for name in own:
        ratio = own[name].std(0) / exact[name].std(0)
        print(f"  {name:<32}{ratio.mean():.2f} [{ratio.min():.2f}, {ratio.max():.2f}]")
    ratio = own[ALPHA].std(0) / exact[ALPHA].std(0)
    assert 0.7 <= float(ratio.mean()) <= 1.1
    assert standard_error(exact[ALPHA]) < 0.12
    gap = (own[ALPHA].mean(0) - exact[ALPHA].mean(0)) / exact[ALPHA].std(0)
    assert float(gap.abs().mean()) < 0.5


@pytest.mark.slow
def test_a_mean_field_guide_would_be_too_narrow(full: Problem, reference: Tensor) -> None:
    """The reference can tell: the best independent normals have the conditional spreads."""
    covariance = torch.cov(weights_of(full.heads, reference)[ALPHA].T)
    narrow = torch.linalg.inv(covariance).diagonal().rsqrt() / covariance.diagonal().sqrt()
    print(f"\nmean-field / NUTS, {ALPHA}: {narrow.mean():.2f}")
    assert float(narrow.mean()) < 0.85


@pytest.mark.slow
def test_the_factors_posterior_is_that_under_nuts(full: Problem, reference: Tensor) -> None:
    """beta'z of the first asset by date: identified, unlike z, under both laws of the heads."""

    def moments(values: Tensor) -> tuple[Tensor, Tensor]:
        means, variances = [], []
        with torch.no_grad():
            for value in values:
                law = full.model.law(full.context, value)
                found = factor_posterior(law, full.outcome.forward_return, full.outcome.observed)
                beta = law.beta[:, 0].unsqueeze(1)
                means.append((beta @ found.loc.unsqueeze(-1)).flatten())
                variances.append((beta @ found.covariance_matrix @ beta.mT).flatten())
        mean = torch.stack(means)
        return mean.mean(0), (torch.stack(variances).mean(0) + mean.var(0)).sqrt()

    one, two = moments(reference[::4]), moments(full.heads.draw(100, seed=0))
    ratio, gap = two[1] / one[1], (two[0] - one[0]) / one[1]
    print(
        f"\nfactor part of a return: sd guide / NUTS {ratio.mean():.2f} [{ratio.min():.2f}, "
        f"{ratio.max():.2f}], mean apart by {gap.abs().mean():.2f} sd"
    )
    assert 0.85 < float(ratio.mean()) < 1.15
    assert float(gap.abs().mean()) < 0.3


@pytest.mark.slow
def test_the_bound_leaves_little_evidence(full: Problem) -> None:
    guide, prior = full.heads.guide(), full.heads.prior()
    evidence = log_evidence(*full.arguments())
    draws = full.heads.draw(1_000, seed=1)
    with torch.no_grad():
        joint = torch.stack([evidence(draw) for draw in draws]) + prior.log_prob(draws)
        weights = joint - guide.log_prob(draws)
    bound = float(weights.mean())
    found = float(torch.logsumexp(weights, 0)) - math.log(len(weights))
    print(f"\nELBO {bound:.1f}, importance-weighted evidence {found:.1f} nats, {DATES} dates")
    assert 0.0 < found - bound < 10.0


def test_on_a_linear_problem_the_guide_finds_the_exact_posterior() -> None:
    """All but alpha's weights held: a Gaussian regression, whose posterior is closed form."""
    problem = make_problem("full", n_dates=7, n_assets=11)
    heads = problem.heads
    size = heads.shapes[0].numel() + heads.shapes[1].numel()  # alpha's weight and bias
    evidence = log_evidence(*problem.arguments())
    start = heads.loc.detach().clone()

    def logged(part: Tensor) -> Tensor:
        whole = torch.cat([part, start[size:]])
        return evidence(whole) + heads.prior().log_prob(whole)

    # The alpha group enters the mean alone and linearly: the log density is quadratic.
    zero = torch.zeros(size, dtype=torch.float64)
    hessian = torch.autograd.functional.hessian(logged, zero)
    other = torch.autograd.functional.hessian(logged, zero + 1.0)
    torch.testing.assert_close(hessian, other, rtol=1e-7, atol=1e-7)
    slope = torch.autograd.functional.jacobian(logged, zero)
    exact = MultivariateNormal(torch.linalg.solve(-hessian, slope), precision_matrix=-hessian)
    with torch.no_grad():
        heads.raw_diagonal[size:] = -40.0  # the others do not move
        heads.factor[size:] = 0.0

    def hold(parameter: Tensor) -> None:
        if parameter.grad is not None:
            parameter.grad[size:] = 0.0

    for parameter in heads.parameters():
        parameter.register_post_accumulate_grad_hook(hold)
    fit_heads(*problem.arguments(), steps=800, particles=1, learning_rate=0.03)
    found = heads.guide()
    spread = found.stddev[:size].detach() / exact.stddev
    assert 0.85 < float(spread.mean()) < 1.15
    gap = (heads.loc[:size].detach() - exact.mean) / exact.stddev
    assert float(gap.abs().max()) < 0.6


def test_point_heads_and_mixtures_are_refused() -> None:
    problem = make_problem("full", n_dates=3, n_assets=5)
    problem.model.heads = None
    with pytest.raises(SpecError, match=r"last layers must be random; got point estimates"):
        sample_heads_nuts(*problem.arguments())
