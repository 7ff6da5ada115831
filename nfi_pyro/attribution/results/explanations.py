"""Results of explanations through networks: heat maps, path attributions, relevance; with flags."""

from dataclasses import dataclass

import xarray as xr


@dataclass(frozen=True)
class FactorHeatMap:
    """Which factors drive what a fit expects of a book, by date: Grad-CAM on factor tokens.

    Dimensions in brackets are there where several fits were given. NaN on a date on which no
    asset of the book has a law (`uncovered` is 1 there). In decimal return where labels are
    returns, else in the label's unit; `uncovered` is a share.

    Attributes
    ----------
    heat : DataArray, shape ([chain], date, factor)
        The map; >= 0 where `rectified`.
    parts : DataArray, shape ([chain], date, part, factor)
        Signed summands of the map: what enters through the network of ``alpha``, through that of
        the ``noise``, and ``linear``, through a slope or the loading on a shared factor.
    value : DataArray, shape ([chain], date)
        What is explained: the book's expected return or standard deviation, of its assets with a
        law.
    uncovered : DataArray, shape ([chain], date)
        Share of the book's absolute weight in assets without a law; it is not explained.
    target : str
        ``mean`` or ``standard_deviation``.
    rectified : bool
        Whether values below 0 were set to 0 in `heat`.
    comparable : bool
        Whether a factor of one fit is that of another, see `factors_comparable`: exposures are
        given, or all are draws of one fit. Learned factors are not aligned between restarts.
    """

    heat: xr.DataArray
    parts: xr.DataArray
    value: xr.DataArray
    uncovered: xr.DataArray
    target: str
    rectified: bool
    comparable: bool


@dataclass(frozen=True)
class LagHeatMap:
    """Which dates of the window drive what a fit expects of a book: Grad-CAM on the time axis.

    Attributes
    ----------
    heat : DataArray, shape ([chain], date, lag)
        The map; lag 0 is the signal date. >= 0 where `rectified`.
    value, uncovered, target, rectified
        As in `FactorHeatMap`.
    """

    heat: xr.DataArray
    value: xr.DataArray
    uncovered: xr.DataArray
    target: str
    rectified: bool


@dataclass(frozen=True)
class HeatMapSanity:
    """Whether a heat map is about what the fit learned: how much random weights change it.

    Attributes
    ----------
    correlation : DataArray, shape ([chain], draw, layer)
        Spearman correlation of the fit's map with the map after this layer and all those above
        it (nearer the output) have random weights, over all cells (date, factor). A map that is
        about the weights ends far below 1. NaN where either map is constant.
    n_cells : int
        Cells behind each correlation.
    target : str
    seed : int
    """

    correlation: xr.DataArray
    n_cells: int
    target: str
    seed: int


@dataclass(frozen=True)
class FeatureAttribution:
    """What features at each lag add to a book's value over a baseline: integrated gradients.

    Dimensions, units and NaN as in `FactorHeatMap`; flags are false where there is no value.

    Attributes
    ----------
    attribution : DataArray, shape ([chain], date, lag, feature)
        Sum over assets; lag 0 is the signal date. Adds up to ``value - baseline_value``.
    by_asset : DataArray, shape ([chain], date, asset, lag, feature), or None
        The same by the asset whose features they are, where asked for. Where the prior moves,
        assets outside the book count too. NaN where an asset has no law.
    value, baseline_value : DataArray, shape ([chain], date)
        The target at the features and at the baseline.
    completeness_error : DataArray, shape ([chain], date)
        ``|sum - (value - baseline_value)| / sum |attribution|``, dimensionless. Attributions of
        less than 1e-9 of the values are rounding, and the gap is then over that.
    complete : DataArray of bool, shape ([chain], date)
        Whether that is below `tolerance`.
    nodes : DataArray of int, shape ([chain], date)
        Of the quadrature; 0 where there is no value.
    uncovered : DataArray, shape ([chain], date)
    target, baseline, prior : str
        See `IntegrationPath`.
    tolerance : float
    """

    attribution: xr.DataArray
    by_asset: xr.DataArray | None
    value: xr.DataArray
    baseline_value: xr.DataArray
    completeness_error: xr.DataArray
    complete: xr.DataArray
    nodes: xr.DataArray
    uncovered: xr.DataArray
    target: str
    baseline: str
    prior: str
    tolerance: float


@dataclass(frozen=True)
class FeatureRelevance:
    """How a book's expected return splits over features, lags and biases: relevance propagation.

    Dimensions, units and NaN as in `FactorHeatMap`; flags are false where there is no value.

    Attributes
    ----------
    relevance : DataArray, shape ([chain], date, lag, feature)
        Sum over assets; lag 0 is the signal date. With `bias` it adds up to `value`, but for what
        the stabiliser absorbs.
    by_asset : DataArray, shape ([chain], date, asset, lag, feature), or None
        The same by the asset whose features they are, where asked for. NaN without a law.
    bias : DataArray, shape ([chain], date, layer)
        What the constants of each layer get: no feature explains it.
    bias_share : DataArray, shape ([chain], date)
        Absolute bias over absolute bias and relevance, in [0, 1].
    value : DataArray, shape ([chain], date)
        The book's expected return, of its assets with a law.
    conservation_error : DataArray, shape ([chain], date)
        ``|sum - value|`` over the sum of absolutes, both over all rows: relevance and bias.
        Dimensionless.
    conserved : DataArray of bool, shape ([chain], date)
        Whether that is below 1 percent.
    uncovered : DataArray, shape ([chain], date)
    rule : str
        In words.
    prior : str
        ``moves`` or ``held``, see `layer_relevance`.
    """

    relevance: xr.DataArray
    by_asset: xr.DataArray | None
    bias: xr.DataArray
    bias_share: xr.DataArray
    value: xr.DataArray
    conservation_error: xr.DataArray
    conserved: xr.DataArray
    uncovered: xr.DataArray
    rule: str
    prior: str
