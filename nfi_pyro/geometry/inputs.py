"""What may enter the geometry: finite exposures, a law that repeats itself and is smooth."""

from collections.abc import Iterator
from functools import partial
from inspect import getclosurevars, isfunction, ismethod

import torch
from torch import Tensor, nn

from nfi_pyro.distributions.law_jets import Pricing
from nfi_pyro.errors import ShapeError, SpecError, name_places
from nfi_pyro.geometry.fisher.metric import DampedLaw

KINKED = (
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.PReLU,
    nn.RReLU,
    nn.ELU,
    nn.CELU,
    nn.SELU,
    nn.Hardtanh,
    nn.Hardsigmoid,
    nn.Hardswish,
    nn.Hardshrink,
    nn.Softshrink,
    nn.Threshold,
)
DROPPING = (nn.modules.dropout._DropoutNd,)


def exposures(value: object, n_factors: int | None, name: str) -> Tensor:
    """Return `value` as finite exposures (..., factor) in double precision.

    Raises
    ------
    ShapeError
        If the last axis is not the manifold's factors.
    SpecError
        If there is a NaN or an infinity.
    """
    beta = torch.as_tensor(value).to(torch.float64)
    if beta.ndim == 0 or (n_factors is not None and beta.shape[-1] != n_factors):
        size = "factors" if n_factors is None else f"{n_factors} factors"
        raise ShapeError(
            f"{name} must end in the manifold's {size}; got shape {tuple(beta.shape)}. Use the "
            "layout (..., factor)."
        )
    finite = torch.isfinite(beta).all(-1)
    if not bool(finite.all()):
        rows = (~finite.flatten()).nonzero().flatten().tolist()
        raise SpecError(
            f"{name} must be finite; got a NaN or an infinity at row {name_places(rows)}. Drop "
            "such rows."
        )
    return beta


def require_law(pricing: Pricing, beta: Tensor) -> None:
    """Refuse a law that does not repeat itself or has no finite parameters at rows (row, factor).

    Raises
    ------
    SpecError
        Says what is wrong with it.
    """
    for module in modules_of(pricing):
        for name, part in module.named_modules():
            if isinstance(part, DROPPING) and part.training and part.p > 0:
                raise SpecError(
                    f"pricing must be deterministic; got active dropout at {name or 'the top'}. "
                    "Call .eval() on the network."
                )
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        first, second = ([part.clone() for part in pricing(beta)] for _ in range(2))
        alone = [part[..., -1, :] for part in pricing(beta[-1:])]
    if len(first) != 3:
        raise SpecError(
            f"pricing must return logits, loc and log scale; got {len(first)} values. Wrap it."
        )
    for part, again, one, name in zip(
        first, second, alone, ("logits", "loc", "log_scale"), strict=True
    ):
        if not bool(torch.isfinite(part).all()):
            raise SpecError(
                f"pricing must return finite parameters; got a NaN or an infinity in {name}. A "
                "scale must be positive, and its logarithm is what counts."
            )
        if not torch.equal(part, again):
            raise SpecError(
                f"pricing must return the same law when called twice; got another {name}. Switch "
                "dropout and other draws off (.eval())."
            )
        if not torch.allclose(part[..., -1, :], one, rtol=1e-6, atol=1e-9):
            raise SpecError(
                f"pricing must price a row by its own exposures alone; got another {name} in "
                "company. Freeze what looks across rows, such as batch normalisation."
            )


def require_smooth(law: DampedLaw, beta: Tensor) -> None:
    """Refuse a law without second derivatives, at rows (row, factor).

    By its modules where they can be seen, and by derivatives of second order that are all 0 while
    those of first order change. What mixes kinks with smooth parts in plain functions passes.

    Raises
    ------
    SpecError
        Names the kind of kink.
    """
    kinks = {
        type(part).__name__
        for module in modules_of(law.pricing)
        for part in module.modules()
        if isinstance(part, KINKED)
    }
    if not kinks:
        moves = torch.linspace(-1.0, 1.0, 9, dtype=beta.dtype)[:, None, None]
        rows = (beta[:3] + moves * torch.ones_like(beta[:1])).flatten(0, 1)
        jets = law.jets(rows, 2)
        bent = jets.second is not None and bool((jets.second != 0).any())
        moved = (jets.first - jets.first[:1]).abs().amax()
        if not bent and float(moved) > 1e-9 * float(jets.first.abs().amax()):
            kinks = {"piecewise linear network"}
    if kinks:
        raise SpecError(
            "pricing must have two continuous derivatives where curvature or a connection is "
            f"asked for; got {', '.join(sorted(kinks))}. Use tanh, SiLU, softplus or GELU."
        )


def modules_of(pricing: object) -> Iterator[nn.Module]:
    """Yield the networks behind a callable, as far as they can be seen."""
    if isinstance(pricing, nn.Module):
        yield pricing
    elif isinstance(pricing, partial):
        for part in (pricing.func, *pricing.args, *pricing.keywords.values()):
            yield from modules_of(part)
    elif ismethod(pricing):
        yield from modules_of(pricing.__self__)
    elif isfunction(pricing):
        seen = getclosurevars(pricing)
        held = [*seen.nonlocals.values(), *seen.globals.values()]
        yield from (part for part in held if isinstance(part, nn.Module))
    else:
        parts = getattr(pricing, "__dict__", {}).values()
        yield from (part for part in parts if isinstance(part, nn.Module))
