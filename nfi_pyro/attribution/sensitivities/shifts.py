r"""How the assets' exposures move when a portfolio's does: a choice that a chain rule needs.

A portfolio's exposure is ``b_j = sum_i w_i beta_ij``. Its derivative by b_j (deck A, lines 295-307,
which drop the weights) is

    dy/db_j = sum_i dy/dbeta_ij D_ij        with D_ij = dbeta_ij / db_j

and any D with ``sum_i w_i D_ij = 1`` will do: nothing but a name says which.
"""

from typing import Literal, get_args

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from nfi_pyro.dims import ASSET, FACTOR
from nfi_pyro.errors import ShapeError, SpecError, WeightsError, name_places
from nfi_pyro.posterior.exposure_pricing import PricingLaw

ShiftName = Literal["parallel", "proportional", "min_norm", "scaling"]
SHIFTS: tuple[ShiftName, ...] = get_args(ShiftName)
_TOLERANCE = 1e-6


def exposure_shift(law: PricingLaw, weights: Tensor, shift: str | xr.DataArray) -> Tensor:
    """Return D, how each asset's exposures move per unit of the portfolio's, (row, factor).

    Parameters
    ----------
    law : PricingLaw
        Of one date; its assets are the rows.
    weights : Tensor, shape (row,)
        Fractions of capital.
    shift : {"parallel", "proportional", "min_norm", "scaling"} or DataArray (asset, factor)
        ``parallel``: every asset moves by 1, which takes weights that sum to 1.
        ``proportional``, ``w_i / sum w^2``: large positions move most. ``min_norm``: the smallest
        D, in the sum of squares over assets; with one constraint by factor that is
        ``w_i / sum w^2`` too, so the two names agree. ``scaling``, ``beta_ij / b_j``: every
        asset's exposure grows by the same percentage; a factor to which the portfolio has no
        exposure has none. A matrix of your own, by asset and factor.

    Raises
    ------
    WeightsError
        If ``parallel`` is asked of weights that do not sum to 1.
    SpecError
        If the shift is unknown, or does not move the portfolio by 1, or cannot.
    ShapeError
        If a matrix lacks an asset or factor.
    """
    found = _given(law, shift) if isinstance(shift, xr.DataArray) else _named(law, weights, shift)
    moved = weights @ found
    wrong = ~((moved - 1.0).abs() <= _TOLERANCE)
    if wrong.any():
        places = [
            f"{law.factors[k]} (by {float(moved[k]):.6g})" for k in torch.nonzero(wrong).flatten()
        ]
        raise SpecError(
            f"a shift must move the portfolio's exposure by 1; got others on "
            f"{str(law.date)[:10]} at {name_places(places)}. Divide each column by its sum of "
            "weights times entries."
        )
    return found


def _named(law: PricingLaw, weights: Tensor, shift: str) -> Tensor:
    """Return a shift by name."""
    day = str(law.date)[:10]
    if shift == "parallel":
        total = float(weights.sum())
        if not abs(total - 1.0) <= _TOLERANCE:
            raise WeightsError(
                f"weights must sum to 1 for a parallel shift; got {total:.6g} on {day}. Normalise "
                'them, give an asset without a law a substitute, or use shift="min_norm", which '
                "long-short books have too."
            )
        return torch.ones_like(law.beta)
    if shift in ("proportional", "min_norm"):
        return (weights / weights.square().sum()).unsqueeze(-1).expand_as(law.beta)
    if shift == "scaling":
        book = weights @ law.beta
        reach = weights.abs() @ law.beta.abs()
        none = book.abs() <= 1e-9 * reach
        if none.any():
            names = [law.factors[k] for k in torch.nonzero(none).flatten()]
            raise SpecError(
                f"a scaling shift must have exposures to scale; got a portfolio without any on "
                f'{day} to {name_places(names)}. Use shift="min_norm".'
            )
        return law.beta / book
    raise SpecError(f"shift must be one of {', '.join(SHIFTS)}, or a matrix; got {shift!r}.")


def _given(law: PricingLaw, shift: xr.DataArray) -> Tensor:
    """Return a matrix of the user's, aligned by label."""
    if set(shift.dims) != {ASSET, FACTOR}:
        raise ShapeError(
            f"a shift must have dimensions asset and factor; got {shift.dims}. Give one matrix."
        )
    wanted: dict[str, list[str]] = {ASSET: list(law.assets), FACTOR: list(law.factors)}
    for dim, names in wanted.items():
        missing = [name for name in names if name not in shift[dim].values]
        if missing:
            raise ShapeError(
                f"a shift must have every {dim} of the law; got none of {name_places(missing)} on "
                f"{str(law.date)[:10]}. Add them."
            )
    values = shift.sel(wanted).transpose(ASSET, FACTOR).values.astype(np.float64)
    return torch.from_numpy(np.ascontiguousarray(values))
