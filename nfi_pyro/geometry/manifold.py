"""The manifold of a pricing law: exposures with the Fisher metric of the returns they price."""

from collections.abc import Callable
from typing import Literal, overload

import torch
from torch import Tensor

from nfi_pyro.distributions.law_jets import Pricing
from nfi_pyro.errors import SpecError
from nfi_pyro.geometry import curvature, fields
from nfi_pyro.geometry.fisher.checked_law import CheckedLaw
from nfi_pyro.geometry.fisher.spectrum import condition
from nfi_pyro.geometry.inputs import exposures
from nfi_pyro.geometry.paths import distances, transport
from nfi_pyro.geometry.paths.joining import logarithm
from nfi_pyro.geometry.paths.shooting import STEPS, exponential, whole_geodesic
from nfi_pyro.geometry.results import manifold as results
from nfi_pyro.geometry.rows import graph_for, restore, warn

ONE_YEAR = 1.0 / 252
Field = Callable[[Tensor], Tensor]


class FisherManifold:
    r"""Exposures as a Riemannian manifold: how well returns can tell two exposures apart.

    The metric is ``G + eps Lambda`` with G the Fisher information of one return about its
    exposures and Lambda a prior precision: eps = 1 / 252 weighs one unit of prior against a year
    of daily returns, and makes the manifold complete, so that there is a geodesic for every
    velocity and every pair. The divergence between near laws is half their squared distance, in
    nats by return. Curvature says how straight lines of exposures spread or meet again, nothing
    about prices.

    Points are exposures (..., factor); leading axes are kept, and broadcast. Tensors are float64
    and constants, but for `metric` and `distance`, which autograd can differentiate.

    Parameters
    ----------
    pricing : callable
        ``pricing(beta) -> (logits, loc, log_scale)``, each (..., component), for beta
        (..., factor): a `PricingLaw`, or any function or network in double precision that
        `torch.func` can differentiate twice. Its method ``jets(beta, order)`` is used where it
        has one.
    eps : float
        Weight of the damping, >= 0, the same everywhere.
    allow_incomplete : bool
        Let geodesics run without damping, where they may leave for infinity in finite time, and
        invert a singular metric on its image.
    background : Tensor, shape (row, factor), optional
        Cloud of exposures: its inverse covariance is Lambda, and distances from it are reported.
        By default ``pricing.beta``, the exposures of a `PricingLaw`'s date.
    precision : Tensor, shape (factor, factor), optional
        Lambda. By default that of the cloud, the identity without one. Keep one Lambda to compare
        dates.
    nodes : {"c11n6", "c11n4", "c15n6", "c15n10"}
        Quadrature; see `nfi_pyro.geometry.fisher.nodes`.
    rank_tol : float
        Eigenvalues of G below this part of the largest count as 0.

    Raises
    ------
    SpecError
        If a value is out of its range, or the cloud fills too few directions.
    """

    def __init__(
        self,
        pricing: Pricing,
        eps: float = ONE_YEAR,
        allow_incomplete: bool = False,
        *,
        background: Tensor | None = None,
        precision: Tensor | None = None,
        nodes: str = "c11n6",
        rank_tol: float = 1e-8,
    ) -> None:
        self.pricing, self.eps = pricing, float(eps)
        self._checked = CheckedLaw(
            pricing,
            eps,
            incomplete=allow_incomplete,
            background=background,
            precision=precision,
            nodes=nodes,
            rank_tol=rank_tol,
        )
        self.cloud = self._checked.cloud

    @property
    def precision(self) -> Tensor | None:
        """Lambda, (factor, factor); None stands for the identity before the first use."""
        return self._checked.reference

    # ---- metric ----------------------------------------------------------------------------------

    def metric(self, beta: Tensor, *, damped: bool = True) -> Tensor:
        """Return ``G + eps Lambda``, or G alone, (..., factor, factor)."""
        law, (rows,), shape = self._checked.rows(beta)
        with graph_for(rows):
            found = law.metric(rows)
            return restore(law.damped(found) if damped else found, shape)

    def inner(self, beta: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """Return the inner product of vectors (..., factor) at exposures, (...)."""
        law, (rows, *vectors), shape = self._checked.rows(beta, first, second)
        with torch.no_grad():
            metric = law.damped(law.metric(rows))
            return restore(torch.einsum("ni,nij,nj->n", vectors[0], metric, vectors[1]), shape)

    def norm(self, beta: Tensor, vector: Tensor) -> Tensor:
        """Return the length of vectors (..., factor) at exposures, (...)."""
        return self.inner(beta, vector, vector).clamp(min=0.0).sqrt()

    def cholesky(self, beta: Tensor) -> Tensor:
        """Return the lower Cholesky factor of the metric, (..., factor, factor)."""
        law, (rows,), shape = self._checked.rows(beta)
        with torch.no_grad():
            metric = law.metric(rows)
            law.require_definite(metric)
            return restore(law.cholesky(metric), shape)

    def spectrum(self, beta: Tensor) -> tuple[Tensor, Tensor]:
        """Return eigenvalues of G in units of Lambda, largest first, and vectors by column."""
        law, (rows,), shape = self._checked.rows(beta)
        with torch.no_grad():
            found = law.spectrum(law.metric(rows))
            return restore(found.values, shape), restore(found.vectors, shape)

    def effective_rank(self, beta: Tensor, floor: float = ONE_YEAR) -> Tensor:
        """Return how many directions 1 / `floor` returns can see: eigenvalues above it, (...)."""
        return (self.spectrum(beta)[0] > floor).sum(-1)

    def condition(self, beta: Tensor) -> Tensor:
        """Return the largest over the smallest eigenvalue of G in units of Lambda, (...)."""
        return condition(self.spectrum(beta)[0])

    def mahalanobis(self, beta: Tensor) -> Tensor:
        """Return distances from the cloud's centre in standard deviations, (...); NaN without."""
        return self._checked.far(exposures(beta, self._checked.n_factors, "beta"))

    def log_volume(self, beta: Tensor) -> Tensor:
        """Return ``log sqrt det`` of the metric, (...)."""
        return self.cholesky(beta).diagonal(dim1=-2, dim2=-1).log().sum(-1)

    # ---- connection ------------------------------------------------------------------------------

    def christoffel(self, beta: Tensor, kind: Literal[1, 2] = 2) -> Tensor:
        """Return Christoffel symbols, (..., factor, factor, factor).

        Of the first kind ``Gamma[m, i, j]``, all down, which damping leaves alone; of the second
        ``Gamma[k, i, j]``, the upper index first.
        """
        law, (rows,), shape = self._checked.rows(beta, smooth=True)
        if kind not in (1, 2):
            raise SpecError(f"kind must be 1 or 2; got {kind}. 2 has the upper index first.")
        with torch.no_grad():
            return restore(fields.christoffel(law, rows, raised=kind == 2), shape)

    def acceleration(self, beta: Tensor, velocity: Tensor) -> Tensor:
        """Return the acceleration of geodesics, ``-Gamma(v, v)``, (..., factor)."""
        law, (rows, vectors), shape = self._checked.rows(beta, velocity, smooth=True)
        with torch.no_grad():
            return restore(law.acceleration(rows, vectors)[0], shape)

    def exp(self, beta: Tensor, velocity: Tensor, steps: int = STEPS) -> results.Exponential:
        """Return where geodesics from exposures with velocities (..., factor) are at time 1.

        Runge-Kutta of fourth order; rows whose speed drifts by over 1e-6 are done again with
        twice as many steps, up to 256. Warns of rows that are not `ok`.

        Raises `SpecError` without damping, unless `allow_incomplete`.
        """
        law, (rows, vectors), shape = self._checked.rows(
            beta, velocity, smooth=True, complete="exp"
        )
        far = self._checked.far
        found = exponential(law, rows, vectors, steps=steps, distance=far, shape=shape)
        return self._checked.located(found)

    def geodesic(
        self,
        beta: Tensor,
        velocity: Tensor | None = None,
        *,
        end: Tensor | None = None,
        points: int = 33,
    ) -> results.Geodesic:
        """Return `points` points of geodesics at equal times, given a velocity or an end.

        Raises `SpecError` unless one of the two is given, and without damping (see `exp`).
        """
        moving = velocity if end is None else self.log(beta, end, polish=True).velocity
        if moving is None or (velocity is not None and end is not None) or points < 2:
            raise SpecError(
                "a geodesic must have either a velocity or an end, and 2 points or more; got "
                f"{points} points. Give one of the two."
            )
        law, (rows, vectors), shape = self._checked.rows(
            beta, moving, smooth=True, complete="geodesic"
        )
        far = self._checked.far
        found = whole_geodesic(law, rows, vectors, points=points, distance=far, shape=shape)
        return self._checked.located(found)

    def log(
        self,
        x: Tensor,
        y: Tensor,
        *,
        start: Tensor | None = None,
        starts: int = 1,
        polish: bool = True,
    ) -> results.Logarithm:
        """Return the shortest geodesics found from x to y, each (..., factor).

        Newton's method on polygons of 4 to 16 chords (up to 128 where that is not enough),
        extrapolated, from a straight line and `starts` - 1 bent ones, or from `start`, polygons
        (..., 9, factor) with both ends. With `polish` the velocity is then corrected by what it
        reaches. Warns of rows that did not converge. Raises `SpecError` as `exp` does.
        """
        law, (left, right), shape = self._checked.rows(x, y, smooth=True, complete="log")
        far = self._checked.far
        found = logarithm(
            law, left, right, start, starts=starts, polished=polish, distance=far, shape=shape
        )
        return self._checked.located(found)

    @overload
    def distance(
        self, x: Tensor, y: Tensor, method: Literal["bounds"], *, squared: bool = ...
    ) -> results.Bounds: ...

    @overload
    def distance(
        self,
        x: Tensor,
        y: Tensor,
        method: Literal["geodesic", "line"] = ...,
        *,
        squared: bool = ...,
        starts: int = ...,
    ) -> Tensor: ...

    def distance(
        self,
        x: Tensor,
        y: Tensor,
        method: str = "geodesic",
        *,
        squared: bool = False,
        starts: int = 1,
    ) -> Tensor | results.Bounds:
        """Return distances of pairs x and y (..., factor), (...).

        Parameters
        ----------
        x, y : Tensor, shape (..., factor)
            Autograd sees ``d d^2 / dy = 2 G v`` of the geodesic distance. Ask for the square where
            the two may meet: the distance itself has no derivative there.
        starts : int
            Of a geodesic, see `log`; more than 1 where the law is so curved that the straight line
            may lie in another valley.
        method : {"geodesic", "bounds", "line"}
            Of the shortest geodesic found (warns of rows that did not converge, see `log`); bounds
            at a hundredth of its cost; or along the straight line of exposures, an upper bound.
        """
        law, (left, right), shape = self._checked.rows(x, y, smooth=method == "geodesic")
        return distances.distance(
            law, left, right, method, squared=squared, starts=starts, shape=shape
        )

    # ---- curvature -------------------------------------------------------------------------------

    def riemann(self, beta: Tensor, *, floor: float = 0.0, damped: bool = False) -> Tensor:
        """Return ``R_ijkl``, all indices down, (..., factor, factor, factor, factor).

        ``R_ijij`` is positive on a sphere. Of G on the directions it identifies: eigenvalues above
        `rank_tol` of the largest and above `floor`, in units of Lambda. Where no floor bites this
        is the curvature of the quotient by the directions that move no law; otherwise that of the
        flat slice of exposures along the kept ones. With `damped` that of `metric()`, whose
        unidentified directions have a curvature of order 1 / eps.
        """
        found, shape = self._riemann(beta, floor, damped)
        return restore(found.riemann, shape)

    def ricci(self, beta: Tensor, *, floor: float = 0.0, damped: bool = False) -> Tensor:
        """Return the Ricci tensor, (..., factor, factor); see `riemann`."""
        found, shape = self._riemann(beta, floor, damped)
        return restore(curvature.ricci(found), shape)

    def scalar_curvature(
        self, beta: Tensor, *, floor: float = 0.0, damped: bool = False
    ) -> results.Curvature:
        """Return the scalar curvature; see `riemann`. Warns of rows with unidentified directions.

        Noise where the condition is large: `principal_curvature` is then the number to read.
        """
        found, shape = self._riemann(beta, floor, damped)
        warn(found.rank < found.inverse.shape[-1], "directions that move no law are left out")
        value, far = curvature.scalar(found), self.mahalanobis(beta)
        return self._checked.located(curvature.summary(value, found, far, shape))

    def sectional(
        self, beta: Tensor, first: Tensor, second: Tensor, *, damped: bool = False
    ) -> Tensor:
        """Return the sectional curvature of planes of vectors (..., factor), (...); see `riemann`.

        Raises
        ------
        SpecError
            If two vectors span no plane in the metric.
        """
        law, (rows, *vectors), shape = self._checked.rows(beta, first, second, smooth=True)
        frame = torch.stack(vectors, dim=-1)
        found = curvature.plane(law, rows, frame, floor=0.0, damped=damped)
        curvature.require_planes(found.spans)
        return restore(found.value, shape)

    def principal_curvature(self, beta: Tensor, *, floor: float | None = None) -> results.Curvature:
        """Return the sectional curvature of the plane in which the law moves most.

        The plane of the two first eigenvectors of G relative to Lambda, in the slice of the
        directions whose eigenvalues exceed `floor`, by default eps: what the data behind the
        damping can see.
        """
        law, (rows,), shape = self._checked.rows(beta, smooth=True)
        found = curvature.principal_plane(law, rows, self.eps if floor is None else floor)
        far = self.mahalanobis(beta)
        return self._checked.located(curvature.summary(found.value, found, far, shape))

    # ---- transport and fields --------------------------------------------------------------------

    def parallel_transport(self, curve: transport.Curve, vector: Tensor, steps: int = 64) -> Tensor:
        """Return vectors (..., factor) at the end of a curve, transported from its start.

        Parameters
        ----------
        curve : Tensor, shape (point, factor), or callable
            Vertices of straight edges, or a smooth function of time in [0, 1] to (factor,) that
            `torch.func` can differentiate.
        vector : Tensor, shape (..., factor)
        steps : int
            By edge, or of the whole of a smooth curve.
        """
        law, _, _ = self._checked.rows(transport.first_point(curve), smooth=True)
        moved = exposures(vector, self._checked.n_factors, "vector")
        with torch.no_grad():
            return moved @ transport.transport_matrix(law, curve, steps).mT

    def holonomy(self, loop: transport.Curve, steps: int = 64) -> results.Holonomy:
        """Return what transport around a closed loop does to vectors at its first point.

        The last vertex is joined to the first; a smooth curve must end where it starts. It
        measures how much "the same" tilt depends on the path of rebalancing: no profit.
        """
        law, (start,), _ = self._checked.rows(transport.first_point(loop), smooth=True)
        with torch.no_grad():
            return transport.holonomy(law, transport.closed(loop), start[0], steps)

    def divergence(self, field: Field, beta: Tensor) -> Tensor:
        """Return the divergence of a vector field at exposures, (...).

        `field` maps (..., factor) to (..., factor) and can be differentiated by `torch.func`. Of a
        natural gradient, take `laplacian`.
        """
        return self._field(fields.divergence, field, beta)

    def laplacian(self, function: Field, beta: Tensor) -> Tensor:
        """Return the Laplace-Beltrami operator of a function (..., factor) to (...), (...)."""
        return self._field(fields.laplacian, function, beta)

    def natural_gradient(self, function: Field, beta: Tensor) -> Tensor:
        """Return the metric's inverse times the gradient of a function, (..., factor)."""
        return self._field(fields.natural_gradient, function, beta, smooth=False)

    # ---- what several of them do -----------------------------------------------------------------

    def _riemann(
        self, beta: Tensor, floor: float, damped: bool
    ) -> tuple[curvature.RowCurvature, torch.Size]:
        """Return the Riemann tensor of rows and their leading shape."""
        law, (rows,), shape = self._checked.rows(beta, smooth=True)
        return curvature.riemann(law, rows, floor=floor, damped=damped), shape

    def _field(
        self,
        operator: Callable[..., Tensor],
        function: Field,
        beta: Tensor,
        *,
        smooth: bool = True,
    ) -> Tensor:
        """Return a differential operator of a field at exposures."""
        law, (rows,), shape = self._checked.rows(beta, smooth=smooth)
        with torch.no_grad():
            return restore(operator(law, function, rows), shape)
