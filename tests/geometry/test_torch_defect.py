"""Torch 2.13 differentiates solves and determinants wrongly inside some transforms.

Wrong without an error: `linalg.solve`, `lu_solve`, `det` and `slogdet` under ``vmap(jacfwd)``, in
every row but the first, and under ``jacfwd(jacfwd)``. The package uses Cholesky factors instead.
"""

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.func import jacfwd, jacrev, vmap

import nfi_pyro
from tests.geometry.closed_laws import draws

PACKAGE = Path(nfi_pyro.__file__).parent
BANNED = {"solve", "lu_solve", "det", "slogdet", "logdet", "solve_ex"}
OWNERS = {"torch", "linalg"}
UNDER_FUNC = (
    "geometry",
    "attribution",
    "distributions/law_jets.py",
    "distributions/mixture.py",
    "distributions/pricing.py",
    "nets/canonical.py",
    "nets/jets.py",
    "nets/law_jets.py",
    "nets/noise.py",
    "nets/pricing.py",
    "posterior/exposure_pricing.py",
)


def spd(point: Tensor) -> Tensor:
    """A positive definite matrix that moves with a point (3,)."""
    base = torch.outer(point, point) + torch.diag(1.0 + point.square())
    return base + 0.3 * torch.eye(3, dtype=point.dtype)


def by_cholesky(point: Tensor) -> Tensor:
    return 2.0 * torch.linalg.cholesky(spd(point)).diagonal().log().sum()


def solved(point: Tensor) -> Tensor:
    factor = torch.linalg.cholesky(spd(point))
    return torch.cholesky_solve(point.unsqueeze(-1), factor).squeeze(-1)


def by_differences(function: Callable[[Tensor], Tensor], point: Tensor) -> Tensor:
    step = 1e-6
    moves = step * torch.eye(len(point), dtype=point.dtype)
    ends = [(function(point + move), function(point - move)) for move in moves]
    return torch.stack([(up - down) / (2.0 * step) for up, down in ends], dim=-1)


@pytest.mark.parametrize("function", [by_cholesky, solved])
@pytest.mark.parametrize("transform", [jacfwd, jacrev])
def test_what_the_package_uses_is_right_in_every_row(
    function: Callable[[Tensor], Tensor], transform: Callable[..., Callable[..., Tensor]]
) -> None:
    points = draws(5, 3, seed=1)
    want = torch.stack([by_differences(function, point) for point in points])
    torch.testing.assert_close(vmap(transform(function))(points), want, rtol=1e-7, atol=1e-8)
    second = torch.stack([by_differences(transform(function), point) for point in points])
    found = vmap(jacfwd(transform(function)))(points)
    torch.testing.assert_close(found, second, rtol=1e-6, atol=1e-7)


@pytest.mark.skipif(not torch.__version__.startswith("2.13"), reason="known of this version")
def test_the_defect_is_still_there() -> None:
    """When this fails the ban may go: torch has been mended."""
    points = draws(5, 3, seed=1)
    found = vmap(jacfwd(lambda point: torch.linalg.slogdet(spd(point))[1]))(points)
    want = vmap(jacfwd(by_cholesky))(points)
    torch.testing.assert_close(found[0], want[0], rtol=1e-8, atol=1e-10)
    assert float((found[1:] - want[1:]).abs().max()) > 0.1


def banned_calls(path: Path) -> Iterator[str]:
    """Yield every use of a banned operation of torch in a module."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and node.attr in BANNED:
            owner = node.value
            name = owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", "")
            root = owner.value if isinstance(owner, ast.Attribute) else owner
            if getattr(root, "id", "") in {"np", "numpy", "scipy", "self"}:
                continue
            if name in OWNERS or node.attr in {"det", "slogdet", "logdet"}:
                yield f"{path.name}:{node.lineno} {node.attr}"
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("torch"):
            for alias in node.names:
                if alias.name in BANNED:
                    yield f"{path.name}:{node.lineno} {alias.name}"


def test_the_banned_operations_do_not_occur_under_torch_func() -> None:
    modules = list(PACKAGE.rglob("*.py"))
    watched = [
        path for path in modules if path.relative_to(PACKAGE).as_posix().startswith(UNDER_FUNC)
    ]
    transforms = ("jacfwd", "jacrev", "vmap", "jvp", "hessian", "grad")
    for path in modules:  # and wherever torch.func's transforms are imported
        imported = {
            alias.name
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.ImportFrom) and node.module == "torch.func"
            for alias in node.names
        }
        if imported & set(transforms) and path not in watched:
            watched.append(path)
    assert len(watched) > 20
    assert [use for path in watched for use in banned_calls(path)] == []


def test_the_ban_sees_what_it_bans(tmp_path: Path) -> None:
    lines = [
        "import torch",
        "from torch.linalg import slogdet",
        "torch.linalg.solve(a, b)",
        "torch.logdet(a)",
        "a.det()",
        "np.linalg.solve(a, b)",
        "self.solve(a, b)",
        "law.solve(a, b)",
    ]
    source = tmp_path / "x.py"
    source.write_text("\n".join(lines))
    found = sorted(use.split(":")[1] for use in banned_calls(source))
    assert found == ["2 slogdet", "3 solve", "4 logdet", "5 det"]
