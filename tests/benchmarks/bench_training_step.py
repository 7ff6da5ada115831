"""What a training step costs, as ratios: Pyro, element-wise work, windows, growth with N.

Run ``pytest tests/benchmarks -q -s -o python_files='bench_*.py' -o pythonpath=.``; a plain
``pytest`` does not collect this file. One thread, contenders in turn, median ratio of the rounds.
"""

import math
from collections.abc import Callable, Iterator

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from nfi_pyro.factor_vae import FactorVAE
from nfi_pyro.nfi import NFI
from tests.benchmarks.contenders import (
    BLOCK,
    LAGS,
    NFI_SPEC,
    SPEC,
    MaterialisedGRU,
    hand_written_loss,
    hand_written_step,
    heads_step,
    make_problem,
    one_date_step,
    package_loss,
    package_step,
)
from tests.benchmarks.products import (
    extractor_products,
    head_products,
    predictor_products,
    run_products,
)
from tests.benchmarks.timing import interleave, ratio

SIZES = (300, 2000)
ROUNDS = {300: 25, 2000: 9}
PARTS = ("extractor", "predictor", "heads")
Seconds = dict[str, list[float]]


@pytest.fixture(scope="module")
def table() -> Iterator[list[str]]:
    lines: list[str] = []
    yield lines
    print("\n\n" + "\n".join(lines))


@pytest.fixture(scope="module")
def measured(one_thread: None) -> dict[int, Seconds]:
    """Seconds of a block of dates by size, contender and round."""
    return {size: _measure(size) for size in SIZES}


def _measure(n_assets: int) -> Seconds:
    problem = make_problem(n_assets)
    parts = {
        "extractor": extractor_products(n_assets),
        "predictor": predictor_products(n_assets),
        "heads": head_products(n_assets),
    }
    contenders: dict[str, Callable[[], object]] = {
        "package": package_step(problem),
        "nfi": package_step(problem, NFI(NFI_SPEC)),
        "hand-written": hand_written_step(problem),
        "one date at a time": one_date_step(problem),
        "extractor": _extractor_step(problem.features),
        "predictor": _predictor_step(problem.tradable),
        "heads": heads_step(problem),
    }
    contenders |= {
        f"{name} products": lambda products=products: run_products(products)  # type: ignore[misc]
        for name, products in parts.items()
    }
    seconds = interleave(contenders, rounds=ROUNDS[n_assets])
    columns = [seconds[f"{name} products"] for name in PARTS]
    seconds["products"] = [sum(row) for row in zip(*columns, strict=True)]
    return seconds


def _extractor_step(features: torch.Tensor) -> Callable[[], None]:
    """Return the extractor's forward and backward pass."""
    extractor = FactorVAE(SPEC).extractor
    grad = torch.randn(BLOCK, features.shape[1], SPEC.hidden_size)
    return lambda: extractor(features, BLOCK).backward(grad)


def _predictor_step(tradable: torch.Tensor) -> Callable[[], None]:
    """Return the factor predictor's forward and backward pass on given hidden states."""
    predictor = FactorVAE(SPEC).predictor
    hidden = torch.randn(*tradable.shape, SPEC.hidden_size, requires_grad=True)

    def run() -> None:
        loc, scale = predictor(hidden, tradable)
        (loc.sum() + scale.sum()).backward()

    return run


def _report(table: list[str], what: str, value: float, target: str) -> None:
    if not table:
        table.append(f"{'one training step, one thread':<62}{'measured':>10}{'target':>12}")
    table.append(f"{what:<62}{value:>10.2f}{target:>12}")


def test_cost_grows_with_the_number_of_assets(table) -> None:
    steps = {str(size): package_step(make_problem(size)) for size in (1250, 5000)}
    seconds = interleave(steps, rounds=15)
    value = ratio(seconds["5000"], seconds["1250"])
    _report(table, "step at N=5000 / step at N=1250", value, "<= 4.40")
    assert value <= 4.4


def test_the_contenders_do_the_same() -> None:
    problem, model = make_problem(50), FactorVAE(SPEC)
    ours = package_loss(model, problem.batch, problem.outcome)
    torch.testing.assert_close(ours, hand_written_loss(model, problem), rtol=1e-5, atol=0.0)
    other = MaterialisedGRU()
    weights = model.extractor.state_dict().items()
    recurrent = {f"{key}_l0" if key.startswith("gru") else key: value for key, value in weights}
    other.load_state_dict(recurrent)
    window = problem.features[:LAGS]
    torch.testing.assert_close(other(window, 1), model.extractor(window, 1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", SIZES)
def test_the_products_are_those_of_the_step(size: int) -> None:
    step = package_step(make_problem(size))
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiler:
        step()
    done = sum(_multiplications(event.name, event.input_shapes) for event in profiler.events())
    listed = [*extractor_products(size), *predictor_products(size), *head_products(size)]
    assert done == sum(product.multiplications for product in listed)


def _multiplications(name: str, shapes: list[list[int]]) -> int:
    """Return the scalar multiplications of one operation, 0 if it is no matrix product."""
    if name in ("aten::mm", "aten::bmm"):
        left, right = shapes[:2]
    elif name in ("aten::addmm", "aten::addmm_", "aten::baddbmm"):
        left, right = shapes[1:3]
    else:
        return 0
    return math.prod(left) * right[-1]


@pytest.mark.parametrize("size", SIZES)
def test_pyro_costs_at_most_a_tenth(measured, table, size: int) -> None:
    value = ratio(measured[size]["package"], measured[size]["hand-written"])
    _report(table, f"step / hand-written torch ELBO, N={size}", value, "<= 1.10")
    assert value <= 1.10


@pytest.mark.parametrize("size", SIZES)
def test_mixture_pricing_costs_at_most_a_quarter(measured, table, size: int) -> None:
    value = ratio(measured[size]["nfi"], measured[size]["package"])
    _report(table, f"nfi step, 3 components / FactorVAE step, N={size}", value, "<= 1.25")
    assert value <= 1.25


@pytest.mark.parametrize("size", SIZES)
def test_the_rest_costs_at_most_as_much_as_the_products(measured, table, size: int) -> None:
    seconds = measured[size]
    value = ratio(seconds["package"], seconds["products"])
    _report(table, f"step / its own matrix products, N={size}", value, "<= 2.00")
    for name in PARTS:
        share = ratio(seconds[name], seconds["package"])
        own = ratio(seconds[name], seconds[f"{name} products"])
        table.append(f"    {name}: {share:.0%} of the step, {own:.2f} of its own products")
    assert value <= 2.0


@pytest.mark.parametrize("size", SIZES)
def test_windows_in_one_pass_are_faster_than_materialised(measured, table, size: int) -> None:
    value = ratio(measured[size]["one date at a time"], measured[size]["package"])
    _report(table, f"one date at a time, nn.GRU on windows / step, N={size}", value, ">= 1.80")
    assert value >= 1.8
