"""What a geometry page shows: labelled arrays only, no manifold and no drawing."""

from collections.abc import Mapping
from dataclasses import dataclass

import xarray as xr

from nfi_pyro.geometry.results.tracking import Tracking


@dataclass(frozen=True)
class StateMovement:
    """How far the factors' law moved through the span.

    Attributes
    ----------
    series : Dataset over (date,)
        Dimensionless: `step` from the date before, `travelled` and `displacement` since the first
        date; `statistic` of the shift alarm, NaN while it is not known; `alarm`, bool.
    threshold : float
        Of the statistic; NaN without an alarm.
    about : str
        What the alarm's rate is, or why there is no alarm.
    """

    series: xr.Dataset
    threshold: float
    about: str


@dataclass(frozen=True)
class ExposurePlane:
    """The pricing law of one date on the two principal directions of its exposures.

    Scores are in standard deviations of the date's exposures along a direction, from their mean.

    Attributes
    ----------
    date : str
    assets : Dataset over (asset,)
        Scores `first` and `second`; `crowding`, the Laplacian of the log density, per squared
        standard deviation, NaN where an asset has too few neighbours.
    shares : DataArray, shape (direction,)
        Of the exposures' variance.
    loadings : DataArray, shape (direction, factor)
        Unit vectors.
    ellipses : Dataset over (point,)
        Centres `first` and `second`; `metric` (point, row, column), damped, per squared standard
        deviation.
    eps : float
        Weight of the damping, and the squared radius of the ellipses.
    path : Dataset over (point,)
        `first` and `second` along the geodesic; its ends are those of the straight line.
        Attributes `start` and `end` (assets), `distance` and `line`, the lengths of the two,
        `n_pairs` and `n_converged`. Empty where no pair converged.
    grid : Dataset over (second, first)
        `returns_needed`, until the second direction of the law is one standard error; `curvature`;
        `identified`, whether the curvature may be read; `inside`, whether an asset is within half
        a standard deviation. NaN outside.
    crowding : Mapping of str to float
        Level, its null and `excess` on the date; empty where there are too few assets.
    """

    date: str
    assets: xr.Dataset
    shares: xr.DataArray
    loadings: xr.DataArray
    ellipses: xr.Dataset
    eps: float
    path: xr.Dataset
    grid: xr.Dataset
    crowding: Mapping[str, float]


@dataclass(frozen=True)
class ExposureFlow:
    """Whether exposures draw together on the plane, by date.

    Attributes
    ----------
    series : Dataset over (date,)
        `divergence`, `null_lower`, `null_upper`, per date, and `identified`.
    mean : Mapping of str to float
        Over identified dates: `divergence`, `lower`, `upper`, `p_value`, `n_dates`, `n_skipped`.
    lag : int
        Dates from instrument to start.
    """

    series: xr.Dataset
    mean: Mapping[str, float]
    lag: int


@dataclass(frozen=True)
class GeometryContents:
    """Everything that the geometry page of one run prints.

    Attributes
    ----------
    title : str
    provenance : mapping of section to mapping of label to text
    settings : mapping of label to text
    label : str
        What the return is and when it is earned.
    evaluation_span : str
        Which dates, and whether training saw them.
    left_out : mapping of part to text
        A sentence why for every part below that is None.
    states : StateMovement or None
    plane : ExposurePlane or None
    flow : ExposureFlow or None
    tracking : Tracking or None
        Of the span's dates, one fit.
    books : tuple of str
        Names of portfolio and benchmark; one book where they are the same.
    """

    title: str
    provenance: Mapping[str, Mapping[str, str]]
    settings: Mapping[str, str]
    label: str
    evaluation_span: str
    left_out: Mapping[str, str]
    states: StateMovement | None
    plane: ExposurePlane | None
    flow: ExposureFlow | None
    tracking: Tracking | None
    books: tuple[str, str]
