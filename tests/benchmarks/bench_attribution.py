"""What sensitivities cost: all assets of a date in closed form, against autograd of the law.

Run ``pytest tests/benchmarks/bench_attribution.py -q -s -o python_files='bench_*.py'
-o pythonpath=.``. One thread; 3,000 assets, 16 factors, 4 components; the law of a date is there
already, as `pricing_laws` yields it.
"""

import resource

import pytest
import torch
from torch.func import hessian, jacrev, vmap

from nfi_pyro.attribution.sensitivities.sensitivity import target_derivatives
from nfi_pyro.attribution.sensitivities.targets import Target
from tests.benchmarks.laws import N_ASSETS, make_law
from tests.benchmarks.timing import interleave, ratio

N_DATES, ROWS = 250, 300
JACOBIAN_SECONDS, HESSIAN_SECONDS = 20.0, 0.5
TARGETS = ("mean", "standard_deviation", "value_at_risk", "expected_shortfall")


@pytest.mark.parametrize("name", TARGETS)
def test_sensitivities(name: str) -> None:
    law, target = make_law(), Target(name)  # type: ignore[arg-type]

    def value(beta: torch.Tensor) -> torch.Tensor:
        return target.evaluate(*law(beta))

    rows = law.beta[:ROWS]  # a Hessian by torch.func of all rows takes gigabytes
    seconds = interleave(
        {
            "first": lambda: target_derivatives(law, target),
            "second": lambda: target_derivatives(law, target, order=2),
            "func": lambda: vmap(jacrev(value))(law.beta),
            "func twice": lambda: vmap(hessian(value))(rows),
        },
        rounds=3,
    )
    first, second = (min(seconds[key]) for key in ("first", "second"))
    slower = ratio(seconds["func"], seconds["first"])
    twice = ratio(seconds["func twice"], seconds["second"]) * N_ASSETS / ROWS
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"\n{name}: Jacobian of {N_ASSETS} x 16 on {N_DATES} dates {first * N_DATES:.1f} s "
        f"(torch.func / ours = {slower:.1f}), Hessian of a date {second:.3f} s "
        f"(torch.func / ours = {twice:.0f}), peak {peak:.2f} GiB"
    )
    own = target_derivatives(law, target, order=2).hessian
    assert own is not None
    torch.testing.assert_close(own[:ROWS], vmap(hessian(value))(rows), rtol=1e-6, atol=1e-9)
    assert first * N_DATES < JACOBIAN_SECONDS
    assert second < HESSIAN_SECONDS
