r"""Curvature by the Gauss equation of the square-root embedding; rows of exposures in.

``R_ijkl = <II_ik, II_jl> - <II_il, II_jk>`` with ``<II_ab, II_cd> = <psi_ab, psi_cd> -
Gamma_{m,ab} G^{mn} Gamma_{n,cd}``: second derivatives of the law, never more. The inverse of G is
the one on the directions that are kept. Where the rank is constant this is the curvature of the
quotient by the directions that move no law; with a floor above that it is the curvature of the
flat slice of exposures through the point along the kept directions, a metric of full rank.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from nfi_pyro.errors import SpecError, name_places
from nfi_pyro.geometry.fisher.embedding import along, bend_coefficients, bends, pair_index
from nfi_pyro.geometry.fisher.metric import DampedLaw
from nfi_pyro.geometry.fisher.spectrum import Spectrum
from nfi_pyro.geometry.results.manifold import Curvature
from nfi_pyro.geometry.rows import restore

FLATTEST = 1e-12  # squared sine below which two vectors span no plane


class Kept(NamedTuple):
    """An inverse metric by row and what it kept.

    Attributes
    ----------
    inverse : Tensor, shape (row, factor, factor)
    spectrum : Spectrum
    kept : Tensor of bool, shape (row, factor)
    """

    inverse: Tensor
    spectrum: Spectrum
    kept: Tensor

    @property
    def rank(self) -> Tensor:
        """Number of kept directions, (row,)."""
        return self.kept.sum(-1)

    @property
    def condition(self) -> Tensor:
        """Largest over smallest kept eigenvalue, (row,)."""
        values = torch.where(self.kept, self.spectrum.values, torch.inf)
        return self.spectrum.values[..., 0] / values.amin(-1)


def keep(law: DampedLaw, metric: Tensor, floor: float, *, least: int = 0) -> Kept:
    """Return the inverse of G (row, factor, factor) on its identified directions.

    `floor` is in units of Lambda; the first `least` directions stay if they are above the
    numerical tolerance.
    """
    found = law.spectrum(metric)
    kept = found.kept(floor, law.rank_tol)
    if least:
        first = torch.arange(metric.shape[-1]) < least
        kept = kept | (found.kept(0.0, law.rank_tol) & first)
    return Kept(found.inverse(kept), found, kept)


class RowCurvature(NamedTuple):
    """Riemann tensor of rows, all indices down, with the inverse metric that belongs to it."""

    riemann: Tensor
    inverse: Tensor
    rank: Tensor
    condition: Tensor


@torch.no_grad()
def riemann(law: DampedLaw, beta: Tensor, *, floor: float, damped: bool) -> RowCurvature:
    """Return ``R_ijkl`` at rows, (row, factor, factor, factor, factor), and its metric's inverse.

    ``R_ijij`` is positive on a sphere. `damped` takes ``G + eps Lambda``, else G on its
    identified directions.
    """

    def one(rows: Tensor) -> tuple[Tensor, ...]:
        jets = law.jets(rows, 2)
        local = law.local(jets)
        bent = bends(local.on, bend_coefficients(jets), local.tangent)
        found = keep(law, local.metric, floor)
        inverse = law.inverse(local.metric) if damped else found.inverse
        gamma = local.tangent @ bent.mT
        forms = bent @ bent.mT - gamma.mT @ inverse @ gamma
        index = pair_index(beta.shape[-1])
        full = forms[:, index][..., index]  # (row, i, k, j, l)
        tensor = full.permute(0, 1, 3, 2, 4) - full.permute(0, 1, 3, 4, 2)
        return tensor, inverse, found.rank, found.condition

    return RowCurvature(*law.by_chunk(one, beta, pairs=True))


def ricci(found: RowCurvature) -> Tensor:
    """Return ``G^{ik} R_ijkl``, (row, factor, factor)."""
    return torch.einsum("nik,nijkl->njl", found.inverse, found.riemann)


def scalar(found: RowCurvature) -> Tensor:
    """Return the scalar curvature, (row,)."""
    return torch.einsum("njl,njl->n", found.inverse, ricci(found))


class PlaneCurvature(NamedTuple):
    """Sectional curvature of a plane by row.

    Attributes
    ----------
    value : Tensor, shape (row,)
    spans : Tensor of bool, shape (row,)
        Whether the two directions span a plane in the metric.
    rank, condition : Tensor, shape (row,)
    """

    value: Tensor
    spans: Tensor
    rank: Tensor
    condition: Tensor


@torch.no_grad()
def plane(
    law: DampedLaw, beta: Tensor, frame: Tensor, *, floor: float, damped: bool
) -> PlaneCurvature:
    """Return the sectional curvature of planes given by frames (row, factor, 2)."""

    def one(rows: Tensor, vectors: Tensor) -> tuple[Tensor, ...]:
        return _plane(law, rows, vectors, floor=floor, damped=damped)

    return PlaneCurvature(*law.by_chunk(one, beta, frame))


@torch.no_grad()
def principal_plane(law: DampedLaw, beta: Tensor, floor: float) -> PlaneCurvature:
    """Return the sectional curvature of the plane in which the law moves most, by row."""

    def one(rows: Tensor) -> tuple[Tensor, ...]:
        return _plane(law, rows, None, floor=floor, damped=False)

    return PlaneCurvature(*law.by_chunk(one, beta))


def _plane(
    law: DampedLaw, beta: Tensor, frame: Tensor | None, *, floor: float, damped: bool
) -> PlaneCurvature:
    """Return the curvature of planes at a few rows; of the principal ones without a frame."""
    jets = law.jets(beta, 2)
    local = law.local(jets)
    found = keep(law, local.metric, floor, least=2)
    if frame is None:
        frame = found.spectrum.vectors[..., :2]
    inner = along(jets, frame)
    bent = bends(local.on, bend_coefficients(inner), frame.mT @ local.tangent)  # uu, uv, vv
    gamma = local.tangent @ bent.mT
    inverse = law.inverse(local.metric) if damped else found.inverse
    forms = bent @ bent.mT - gamma.mT @ inverse @ gamma
    metric = law.damped(local.metric) if damped else local.metric
    gram = frame.mT @ metric @ frame
    product = gram[:, 0, 0] * gram[:, 1, 1]
    area = product - gram[:, 0, 1].square()
    spans = (area > FLATTEST * product) & (found.rank > 1)
    value = (forms[:, 0, 2] - forms[:, 1, 1]) / torch.where(spans, area, 1.0)
    return PlaneCurvature(torch.where(spans, value, torch.nan), spans, found.rank, found.condition)


def require_planes(spans: Tensor) -> None:
    """Refuse vectors that span no plane.

    Raises
    ------
    SpecError
        Names the rows.
    """
    if not bool(spans.all()):
        rows = (~spans).nonzero().flatten().tolist()
        raise SpecError(
            "two vectors must span a plane in the metric; got none, since they are parallel or "
            f"move no law, at row {name_places(rows)}. Choose others, or see principal_curvature."
        )


def summary(
    value: Tensor, found: RowCurvature | PlaneCurvature, far: Tensor, shape: torch.Size
) -> Curvature:
    """Return curvatures of rows with their flags and leading axes `shape`."""
    ok = (found.rank > 1) & torch.isfinite(value)
    parts = (torch.where(ok, value, torch.nan), found.rank, found.condition, far.flatten(), ok)
    return Curvature(*(restore(part, shape) for part in parts))
