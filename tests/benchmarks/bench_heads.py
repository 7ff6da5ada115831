"""What random last layers cost: a training step with them over the same step without.

Run ``pytest tests/benchmarks -q -s -o python_files='bench_*.py' -o pythonpath=.``; one thread,
contenders in turn, median ratio of the rounds.
"""

import pytest

from nfi_pyro.distributions.heads import HeadSpec
from nfi_pyro.factor_vae import FactorVAE
from nfi_pyro.nfi import NFI
from tests.benchmarks.contenders import NFI_SPEC, SPEC, make_problem, package_step
from tests.benchmarks.timing import interleave, ratio

MODELS = {"factor_vae": (FactorVAE, SPEC), "nfi": (NFI, NFI_SPEC)}
ROUNDS = {300: 25, 2000: 9}
TARGET = 1.15


@pytest.mark.parametrize("size", sorted(ROUNDS))
@pytest.mark.parametrize("name", sorted(MODELS))
def test_random_heads_cost_at_most_a_seventh(name: str, size: int) -> None:
    make, spec = MODELS[name]
    random = spec.model_copy(update={"heads": HeadSpec(kind="low_rank")})
    problem = make_problem(size)
    steps = {
        "random": package_step(problem, make(random)),
        "point": package_step(problem, make(spec)),
    }
    seconds = interleave(steps, rounds=ROUNDS[size])
    value = ratio(seconds["random"], seconds["point"])
    print(f"\n{name} step, random heads / point heads, N={size}: {value:.3f} (at most {TARGET})")
    assert value <= TARGET
