r"""The average metric: what a shift of exposures that all assets share does to their returns.

``sum_i w_i g(beta_i + shift)`` is the Fisher metric that the shift inherits from the laws of all
assets, each weighted by ``w_i``: what a tilt of a portfolio can be told apart by. One asset's law
has at most ``3 K - 1`` directions (K components); different assets see different ones, so their
mean has more, often all of them.

It is a mean of single assets' information, by return. Assets share factors, so N assets at one
date tell less than N times it.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from nfi_pyro.errors import ShapeError, SpecError, name_places
from nfi_pyro.geometry.fisher.spectrum import SMALLEST, condition, spectrum
from nfi_pyro.geometry.inputs import exposures
from nfi_pyro.geometry.manifold import ONE_YEAR, FisherManifold
from nfi_pyro.geometry.results.average import EffectiveMovement
from nfi_pyro.geometry.rows import restore

STANDARD_ERRORS = 2.0
FAINTEST = 1e-10  # part of the largest eigenvalue that a mean of metrics is exact to


class AverageManifold:
    """Shifts that all exposures share, with the average metric ``sum_i w_i g(beta_i + shift)``.

    Points are shifts (..., factor), 0 for where the assets are; leading axes are kept. Damping is
    the manifold's: the weights add up to 1, so ``eps Lambda`` is as it was. Figures are constants
    in double precision.

    Parameters
    ----------
    manifold : FisherManifold
        Of one date's law.
    beta : Tensor, shape (asset, factor), optional
        By default ``manifold.pricing.beta``, the exposures of a `PricingLaw`'s date.
    weights : Tensor, shape (asset,), optional
        At least 0, adding up to 1: of a portfolio, or capital. By default equal.

    Raises
    ------
    ShapeError, SpecError
        If shapes do not fit, there are no exposures, values are not finite, or weights are
        negative or do not add up to 1.
    """

    def __init__(
        self,
        manifold: FisherManifold,
        beta: Tensor | None = None,
        weights: Tensor | None = None,
    ) -> None:
        own = getattr(manifold.pricing, "beta", None)
        if beta is None and own is None:
            raise SpecError(
                "an average must be over exposures; got none, and a law without any of its own. "
                "Give beta (asset, factor)."
            )
        self.manifold = manifold
        self.beta = exposures(own if beta is None else beta, None, "beta").detach()
        if self.beta.ndim != 2 or not len(self.beta):
            raise ShapeError(
                f"beta must be (asset, factor) with 1 asset or more; got shape "
                f"{tuple(self.beta.shape)}. Take one date."
            )
        self.weights = _weights(weights, len(self.beta))
        self._assets = getattr(manifold.pricing, "assets", None) if beta is None else None
        self._factors = getattr(manifold.pricing, "factors", None)

    def metric(self, shift: Tensor | None = None, *, damped: bool = True) -> Tensor:
        """Return ``sum_i w_i G(beta_i + shift) + eps Lambda``, or without, (..., factor, factor).

        `shift` (..., factor) is 0 by default.
        """
        with torch.no_grad():
            found = self.manifold.metric(self._moved(shift), damped=damped)
            return torch.einsum("a,...aij->...ij", self.weights, found)

    def inner(self, shift: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """Return the inner product of vectors (..., factor) at shifts, (...)."""
        vectors = [exposures(part, self.beta.shape[-1], "vectors") for part in (first, second)]
        return torch.einsum("...i,...ij,...j->...", vectors[0], self.metric(shift), vectors[1])

    def norm(self, shift: Tensor, vector: Tensor) -> Tensor:
        """Return the length of vectors (..., factor) at shifts, (...)."""
        return self.inner(shift, vector, vector).clamp(min=0.0).sqrt()

    def christoffel(self, shift: Tensor | None = None) -> Tensor:
        """Return Christoffel symbols of the first kind, (..., factor, factor, factor), all down.

        ``Gamma[m, i, j]``, the mean of the assets' own, since the shift embeds as all assets'
        square roots of densities side by side.
        """
        with torch.no_grad():
            found = self.manifold.christoffel(self._moved(shift), kind=1)
            return torch.einsum("a,...amij->...mij", self.weights, found)

    def spectrum(self, shift: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return eigenvalues of the mean of G in units of Lambda, largest first, and vectors."""
        metric = self.metric(shift, damped=False)
        rows = metric.reshape(-1, *metric.shape[-2:])
        found = spectrum(rows, self._reference())
        shape = metric.shape[:-2]
        return restore(found.values, shape), restore(found.vectors, shape)

    def effective_rank(self, shift: Tensor | None = None, floor: float = ONE_YEAR) -> Tensor:
        """Return how many directions of shift 1 / `floor` returns can see, (...)."""
        return (self.spectrum(shift)[0] > floor).sum(-1)

    def condition(self, shift: Tensor | None = None) -> Tensor:
        """Return the largest over the smallest eigenvalue of the mean of G, (...)."""
        return condition(self.spectrum(shift)[0])

    def movement(
        self,
        directions: Tensor | None = None,
        *,
        names: Sequence[str] | None = None,
        floor: float = ONE_YEAR,
    ) -> EffectiveMovement:
        """Return how far a small shift from where the assets are moves their laws, by direction.

        Not damped; for `own_movement`, eigenvalues below 1e-10 of the largest count as that.

        Parameters
        ----------
        directions : Tensor, shape (direction, factor), optional
            Shifts of length 1 by definition; not 0. By default one for each factor.
        names : sequence of str, optional
            Of the directions; by default the law's factors, or their places.
        floor : float
            Of the effective rank.

        Raises
        ------
        ShapeError, SpecError
            If directions or names do not fit, or a direction is 0.
        """
        lines, labels = self._directions(directions, names)
        with torch.no_grad():
            own = self.manifold.metric(self.beta, damped=False)
        by_asset = torch.einsum("di,aij,dj->ad", lines, own, lines).clamp(min=0.0)
        part = self.weights.unsqueeze(-1) * by_asset
        squared = part.sum(0)
        spread = self._spread(lines)
        moved = squared.sqrt() * spread
        table = {
            "movement": squared.sqrt(),
            "own_movement": torch.minimum(self._own(lines), squared.sqrt()),
            "spread": spread,
            "spread_movement": moved,
            "n_effective": squared.square() / part.square().sum(0),
            "returns_needed": (STANDARD_ERRORS / moved).square(),
        }
        n_assets = len(self.beta)
        assets = np.arange(n_assets) if self._assets is None else self._assets
        return EffectiveMovement(
            xr.Dataset(
                {name: ("direction", value.numpy()) for name, value in table.items()},
                coords={"direction": labels},
            ),
            xr.DataArray(
                by_asset.sqrt().numpy(),
                coords={"asset": assets, "direction": labels},
                dims=("asset", "direction"),
                name="movement",
            ),
            int(self.effective_rank(floor=floor)),
        )

    def _moved(self, shift: Tensor | None) -> Tensor:
        """Return exposures after shifts, (..., asset, factor)."""
        if shift is None:
            return self.beta
        return self.beta + exposures(shift, self.beta.shape[-1], "shift").unsqueeze(-2)

    def _reference(self) -> Tensor:
        """Return Lambda."""
        found = self.manifold.precision
        return torch.eye(self.beta.shape[-1], dtype=torch.float64) if found is None else found

    def _spread(self, lines: Tensor) -> Tensor:
        """Return the weighted deviation of exposures along directions, each by its length.

        A direction's coordinate is that of the orthogonal projection, in units of its length.
        """
        along = (self.beta @ lines.mT) / lines.square().sum(-1)
        gap = along - self.weights @ along
        return (self.weights @ gap.square()).sqrt()

    def _own(self, lines: Tensor) -> Tensor:
        """Return the shortest length of a direction plus anything across it, (direction,).

        What is fixed is the coordinate along the direction c, so the least squared length is
        ``(c'c)^2 / (c' G^-1 c)``: with eigenvalues in units of Lambda, ``c' G^-1 c`` is the sum of
        ``(c'x)^2 / value``.
        """
        values, vectors = self.spectrum()
        least = (FAINTEST * values[:1]).clamp(min=SMALLEST)
        inverse = (lines @ vectors).square() / values.clamp(min=least)
        return lines.square().sum(-1) / inverse.sum(-1).sqrt()

    def _directions(
        self, directions: Tensor | None, names: Sequence[str] | None
    ) -> tuple[Tensor, list[str]]:
        """Return directions (direction, factor) and their names."""
        n_factors = self.beta.shape[-1]
        if directions is None:
            lines = torch.eye(n_factors, dtype=torch.float64)
            default = self._factors or [f"factor {place}" for place in range(n_factors)]
        else:
            lines = exposures(directions, n_factors, "directions").detach()
            default = [f"direction {place}" for place in range(len(lines))]
        labels = list(default if names is None else names)
        if lines.ndim != 2 or len(labels) != len(lines):
            raise ShapeError(
                f"directions must be (direction, factor) with a name for each; got shape "
                f"{tuple(lines.shape)} and {len(labels)} names. Give one row for each name."
            )
        empty = (lines == 0).all(-1)
        if bool(empty.any()):
            raise SpecError(
                "a direction must not be 0; got 0 at direction "
                f"{name_places(empty.nonzero().flatten().tolist())}. Leave it out."
            )
        return lines, labels


def _weights(weights: Tensor | None, n_assets: int) -> Tensor:
    """Return weights (asset,) after a look at them; equal ones by default."""
    if weights is None:
        return torch.full((n_assets,), 1.0 / n_assets, dtype=torch.float64)
    share = torch.as_tensor(weights).detach().to(torch.float64)
    if share.shape != (n_assets,):
        raise ShapeError(
            f"weights must be ({n_assets},), one by asset; got shape {tuple(share.shape)}. Put 0 "
            "for an asset that is not held."
        )
    wrong = ~(share >= 0)
    if bool(wrong.any()) or not math.isclose(float(share.sum()), 1.0, abs_tol=1e-6):
        places = name_places(wrong.nonzero().flatten().tolist())
        raise SpecError(
            f"weights must be at least 0 and add up to 1; got a sum of {float(share.sum()):.6g} "
            f"and negative or missing ones at {places}. Use shares of gross exposure for a book "
            "with short positions."
        )
    return share
