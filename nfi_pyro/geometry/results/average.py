"""Result of the average metric: how far a shared shift of exposures moves the laws of returns."""

from dataclasses import dataclass

import xarray as xr


@dataclass(frozen=True)
class EffectiveMovement:
    """How much of a shift that all exposures share can be told from returns, by direction.

    Attributes
    ----------
    by_direction : Dataset over (direction,)
        `movement`, Fisher length by unit of shift: half its square is the divergence, in nats by
        return of an average asset. `own_movement`, of it the part that no other shift imitates:
        the shortest length of this shift plus any shift of the factors across it. `spread`,
        weighted standard deviation of the assets' exposures along the direction, and
        `spread_movement`, the movement by one such deviation. `n_effective`, assets that carry
        the squared movement (inverse sum of squared shares); NaN where nothing moves.
        `returns_needed`, returns of an average asset until a shift of one spread is two standard
        errors; infinite where nothing moves.
    by_asset : DataArray, shape (asset, direction)
        Movement of each asset's own law, by unit of shift.
    effective_rank : int
        Directions of shift, of all factors, that 1 / floor returns of an average asset can see.
    """

    by_direction: xr.Dataset
    by_asset: xr.DataArray
    effective_rank: int
