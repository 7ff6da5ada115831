"""What the factor posterior costs beside a training step, as ratios in one run.

Run ``pytest tests/benchmarks/bench_factor_posterior.py -q -s -o python_files='bench_*.py'
-o pythonpath=.``. One thread, contenders in turn, median ratio of the rounds; blocks of 8 dates,
16 factors, 3 components.
"""

from collections.abc import Callable

import pytest
import torch

from nfi_pyro.distributions.mixture_posterior import factor_posterior
from nfi_pyro.nfi import NFI
from tests.benchmarks.contenders import NFI_SPEC, make_problem, package_step
from tests.benchmarks.timing import interleave, ratio

SIZES = (300, 2000)
ROUNDS = {300: 25, 2000: 9}
MOST = 0.08  # of a training step
STEPS = {"3 coordinate ascent": (3, 0), "3 coordinate ascent + 2 Newton": (3, 2)}


def posterior_of(n_assets: int, cavi_steps: int, newton_steps: int) -> Callable[[], object]:
    """Return the posterior of one block, without gradients, of a model's own law."""
    problem, model = make_problem(n_assets), NFI(NFI_SPEC)
    with torch.no_grad():
        law = model.law(model.context(problem.batch))

    def run() -> object:
        with torch.no_grad():
            return factor_posterior(
                law,
                problem.forward_return,
                problem.observed,
                cavi_steps=cavi_steps,
                newton_steps=newton_steps,
            )

    return run


@pytest.mark.parametrize("size", SIZES)
def test_the_posterior_costs_little_beside_a_training_step(size: int) -> None:
    contenders: dict[str, Callable[[], object]] = {
        "step": package_step(make_problem(size), NFI(NFI_SPEC)),
        **{name: posterior_of(size, *steps) for name, steps in STEPS.items()},
    }
    seconds = interleave(contenders, rounds=ROUNDS[size])
    shares = {name: ratio(seconds[name], seconds["step"]) for name in STEPS}
    listed = ", ".join(f"{name} {share:.1%}" for name, share in shares.items())
    print(f"\nfactor posterior / nfi training step, N={size}: {listed} (target <= {MOST:.0%})")
    assert max(shares.values()) <= MOST
