"""A pricing law behind its checks: rows come out finite, of one size, from a law that is usable."""

import warnings
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from nfi_pyro.distributions.law_jets import Pricing
from nfi_pyro.errors import SpecError, name_places
from nfi_pyro.geometry.fisher.cloud import cloud_of, require_positive
from nfi_pyro.geometry.fisher.metric import DampedLaw
from nfi_pyro.geometry.fisher.nodes import panel_rule
from nfi_pyro.geometry.inputs import exposures, require_law, require_smooth
from nfi_pyro.geometry.rows import flatten

PROBES = 8  # rows that the law is tried on, once
OUTSIDE = 2.0  # reaches of the cloud: what was fitted says nothing out there


class Located(Protocol):
    """A result that says how far from the cloud it went."""

    @property
    def mahalanobis(self) -> Tensor:
        """Distance in standard deviations, (...)."""


Result = TypeVar("Result", bound=Located)


class CheckedLaw:
    """What every function of a manifold passes through; parameters as in `FisherManifold`.

    Attributes
    ----------
    cloud : Cloud or None
    reference : Tensor or None
        Lambda; None stands for the identity until the number of factors is known.
    """

    def __init__(
        self,
        pricing: Pricing,
        eps: float,
        *,
        incomplete: bool,
        background: Tensor | None,
        precision: Tensor | None,
        nodes: str,
        rank_tol: float,
    ) -> None:
        if not 0 <= eps < float("inf"):
            raise SpecError(f"eps must be at least 0 and finite; got {eps}. The default is 1/252.")
        if not 0 < rank_tol < 1:
            raise SpecError(f"rank_tol must lie in (0, 1); got {rank_tol}. The default is 1e-8.")
        self._pricing, self._eps, self._incomplete = pricing, float(eps), incomplete
        self._rule, self._rank_tol = panel_rule(nodes), rank_tol
        if background is None and precision is None:
            background = getattr(pricing, "beta", None)
        self.cloud = None if background is None else cloud_of(background)
        self.reference = None if self.cloud is None else self.cloud.precision
        if precision is not None:
            self.reference = require_positive(precision, self.reference)
        self._usable = self._smooth = False

    @property
    def n_factors(self) -> int | None:
        """Number of factors, None before it is known."""
        return None if self.reference is None else len(self.reference)

    def rows(
        self, *parts: Tensor, smooth: bool = False, complete: str | None = None
    ) -> tuple[DampedLaw, list[Tensor], torch.Size]:
        """Return the law, the parts as rows (row, factor), and their leading shape.

        Parameters
        ----------
        *parts : Tensor, shape (..., factor)
            Points first; they broadcast.
        smooth : bool
            Whether second derivatives will be taken.
        complete : str, optional
            Name of a function that needs a complete manifold.

        Raises
        ------
        ShapeError, SpecError
            If the parts, the law or the manifold are not what is needed.
        """
        if complete is not None and self._eps == 0 and not self._incomplete:
            raise SpecError(
                f"eps must be above 0 for {complete}; got 0, where geodesics may leave for "
                "infinity in finite time. Damp the metric, or set allow_incomplete=True and read "
                "the flags."
            )
        n_factors = self.n_factors
        checked = []
        for part in parts:
            checked.append(exposures(part, n_factors, "exposures and vectors"))
            n_factors = checked[0].shape[-1]
        rows, shape = flatten(*checked)
        return self.law(rows[0], smooth=smooth), rows, shape

    def law(self, rows: Tensor, *, smooth: bool) -> DampedLaw:
        """Return the law, tried once on rows (row, factor)."""
        if self.reference is None:
            self.reference = torch.eye(rows.shape[-1], dtype=torch.float64)
        law = DampedLaw(
            self._pricing, self._eps, self.reference, self._rule, self._rank_tol, self._incomplete
        )
        if not self._usable and len(rows):
            require_law(self._pricing, rows[:PROBES].detach())
            self._usable = True
        if smooth and not self._smooth and len(rows):
            require_smooth(law, rows[:PROBES].detach())
            self._smooth = True
        return law

    def far(self, beta: Tensor) -> Tensor:
        """Return distances from the cloud in standard deviations, (...); NaN without one."""
        if self.cloud is None:
            return torch.full(beta.shape[:-1], torch.nan, dtype=torch.float64)
        return self.cloud.mahalanobis(beta)

    def located(self, result: Result) -> Result:
        """Return a result after a warning of its rows that went far outside the cloud."""
        if self.cloud is not None:
            rows = (result.mahalanobis.flatten() > OUTSIDE * self.cloud.reach).nonzero().flatten()
            if len(rows):
                warnings.warn(
                    f"exposures {OUTSIDE:g} times as far out as any of the cloud, at row "
                    f"{name_places(rows.tolist())}: the law is extrapolated there",
                    UserWarning,
                    stacklevel=3,
                )
        return result
