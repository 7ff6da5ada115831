"""What a sensitivity is of: a number that a mixture of normals has, with its derivatives."""

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from nfi_pyro.distributions.functionals import tail_loss
from nfi_pyro.distributions.law_jets import LawJets
from nfi_pyro.distributions.quantiles import mixture_quantile
from nfi_pyro.errors import SpecError

TargetName = Literal[
    "mean", "variance", "standard_deviation", "sharpe", "value_at_risk", "expected_shortfall"
]
TARGETS: tuple[TargetName, ...] = get_args(TargetName)
UNITS = {"variance": "decimal return squared", "sharpe": "1"}


@dataclass(frozen=True)
class Target:
    r"""A functional of one asset's law of return over the label's horizon.

    Attributes
    ----------
    name : {"mean", "variance", "standard_deviation", "sharpe", "value_at_risk",
            "expected_shortfall"}
        ``sharpe`` is ``(mean - risk_free) / standard deviation``, per horizon, not annualised.
        Value at risk and expected shortfall are losses: positive is a loss.
    level : float
        Confidence of the last two, in (0, 1): 0.95 is about the worst 5 percent.
    risk_free : float
        Decimal return over the horizon, for ``sharpe``.

    Raises
    ------
    SpecError
        If the name is unknown, or a number out of range.
    """

    name: TargetName = "mean"
    level: float = 0.95
    risk_free: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what is no target."""
        if self.name not in TARGETS:
            raise SpecError(
                f"target must be one of {', '.join(TARGETS)}; got {self.name!r}. Use mean."
            )
        if not 0.0 < self.level < 1.0:
            raise SpecError(
                f"level must lie strictly between 0 and 1; got {self.level} at {self.name}. "
                "Use 0.95."
            )
        if not abs(self.risk_free) < 1.0:
            raise SpecError(
                f"risk_free must be a decimal return over the label's horizon; got "
                f"{self.risk_free}. 0.0001 is one basis point."
            )

    @classmethod
    def of(cls, target: "str | Target") -> "Target":
        """Return a target from its name or itself."""
        return target if isinstance(target, Target) else cls(target)  # type: ignore[arg-type]

    @property
    def unit(self) -> str:
        """Unit of its values."""
        return UNITS.get(self.name, "decimal return")

    @property
    def attrs(self) -> dict[str, str | float]:
        """What a dataset of it carries."""
        return {"target": self.name, "level": self.level, "risk_free": self.risk_free}

    def evaluate(self, logits: Tensor, loc: Tensor, log_scale: Tensor) -> Tensor:
        """Return the functional, (...), of mixtures (..., component) in decimal return.

        Differentiable to fourth order, by autograd and `torch.func`.
        """
        scale = log_scale.exp()
        if self.name in ("value_at_risk", "expected_shortfall"):
            tail = torch.full_like(loc[..., 0], 1.0 - self.level)
            if self.name == "value_at_risk":
                return -mixture_quantile(logits, loc, scale, tail)
            return tail_loss(logits, loc, scale, tail)
        weight = torch.softmax(logits, -1)
        mean = (weight * loc).sum(-1)
        if self.name == "mean":
            return mean
        gap = loc - mean.unsqueeze(-1)
        variance = (weight * (scale.square() + gap.square())).sum(-1)
        if self.name == "variance":
            return variance
        deviation = variance.sqrt()
        return (
            deviation if self.name == "standard_deviation" else (mean - self.risk_free) / deviation
        )


class TargetJets(NamedTuple):
    """A target as a function of exposure with its derivatives, row by row.

    Attributes
    ----------
    value : Tensor, shape (row,)
    gradient : Tensor, shape (row, factor)
    hessian : Tensor, shape (row, factor, factor), optional
        None where only first derivatives were asked for.
    """

    value: Tensor
    gradient: Tensor
    hessian: Tensor | None


def chain_target(target: Target, jets: LawJets) -> TargetJets:
    """Return a target's derivatives by exposure from those of the law's parameters, exact.

    The functional's own derivatives, by the law's few parameters, are autograd's; those of the
    parameters come from the law: ``dy = y_p dp``, ``d2y = dp' y_pp dp + y_p d2p``.

    Parameters
    ----------
    target : Target
    jets : LawJets
        Of rows, in decimal return.
    """
    order = 1 if jets.second is None else 2
    with torch.enable_grad():
        parameters = jets.value.detach().clone().requires_grad_()
        value = target.evaluate(*parameters.unbind(-2))
        (slope,) = torch.autograd.grad(value.sum(), parameters, create_graph=order > 1)
        own = None if order == 1 else _curvature(slope, parameters)
    first = jets.first.flatten(-3, -2)  # (row, parameter, factor)
    flat = slope.detach().flatten(-2)
    gradient = torch.einsum("np,npj->nj", flat, first)
    if jets.second is None or own is None:
        return TargetJets(value.detach(), gradient, None)
    hessian = torch.einsum("npj,npq,nqk->njk", first, own, first)
    hessian = hessian + torch.einsum("np,npjk->njk", flat, jets.second.flatten(-4, -3))
    return TargetJets(value.detach(), gradient, 0.5 * (hessian + hessian.mT))


def is_kinked(gradient: Tensor, hessian: Tensor) -> bool:
    """Return whether slopes (row, factor) differ though every second derivative is 0.

    As those of a piecewise linear network do; slopes that differ by 1e-9 of the largest, or less,
    differ by rounding.
    """
    if hessian.any() or len(gradient) < 2:
        return False
    gap = gradient.amax(0) - gradient.amin(0)
    return bool(gap.max() > 1e-9 * gradient.abs().max())


def _curvature(slope: Tensor, parameters: Tensor) -> Tensor:
    """Return second derivatives by the parameters, (row, parameter, parameter)."""
    columns = slope.flatten(-2)
    rows = []
    for place in range(columns.shape[-1]):
        total = columns[:, place].sum()
        if not total.requires_grad:  # linear in all parameters
            rows.append(torch.zeros_like(columns))
            continue
        (row,) = torch.autograd.grad(total, parameters, retain_graph=True)
        rows.append(row.flatten(-2))
    return torch.stack(rows, dim=-2)
