"""Whether a Grad-CAM map is about the weights that a fit learned: the randomised-weights test."""

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr
from scipy.stats import spearmanr
from torch import nn

from nfi_pyro.attribution.book_moments import check_target
from nfi_pyro.attribution.networks.explained import open_explained
from nfi_pyro.attribution.networks.gradcam import factor_heat, require_factor_axis
from nfi_pyro.attribution.results.explanations import HeatMapSanity
from nfi_pyro.data.panel import Panel
from nfi_pyro.dims import DRAW
from nfi_pyro.errors import SpecError
from nfi_pyro.posterior.blocks import DateRange
from nfi_pyro.posterior.dated_weights import DatedWeights, Held
from nfi_pyro.posterior.fits import check_fits, join_chains
from nfi_pyro.posterior.wide import wide_model
from nfi_pyro.svi.config import check_seed
from nfi_pyro.svi.trained import SVIFit

LAYER = "layer"
_TRAINING_ONLY = ("encoder", "heads")  # no forecast runs them


def gradcam_sanity(
    fits: SVIFit | Sequence[SVIFit],
    panel: Panel,
    *,
    weights: Held = None,
    target: str = "mean",
    dates: DateRange | None = None,
    draws: int = 5,
    seed: int = 0,
) -> HeatMapSanity:
    """Return how far the map of `factor_gradcam` changes as layers get random weights.

    The cascading test of Adebayo et al. (2018): from the output back to the features, one layer
    more at each step gets weights drawn anew, normal with the mean and the standard deviation of
    the learned ones. Maps are compared without ReLU, by the Spearman correlation over all cells
    (date, factor) in which both have a value. A map that hardly changes says more about the
    architecture and the exposures than about what was learned.

    Parameters
    ----------
    fits, panel, weights, target, dates
        As in `factor_gradcam`.
    draws : int
        Cascades with weights of their own, at least 1: one alone is a matter of luck.
    seed : int
        Of the draws; each fit gets the same ones.

    Returns
    -------
    HeatMapSanity

    Raises
    ------
    SpecError, WeightsError, ShapeError, SplitError, PanelError
        As in `factor_gradcam`; also if draws or seed are out of range.

    References
    ----------
    .. [1] Adebayo, Gilmer, Muelly, Goodfellow, Hardt, Kim (2018). Sanity checks for saliency
       maps. NeurIPS.
    """
    check_seed(seed)
    if draws < 1:
        raise SpecError(f"draws must be at least 1; got {draws}. Use 5.")
    found, n_cells = [], 0
    for fit in check_fits(fits):
        require_factor_axis(fit)
        check_target(target, fit)
        opened = open_explained(fit, panel, dates)
        book = DatedWeights(weights, opened.dates, opened.assets)
        before = factor_heat(opened, book, target)["parts"].values.sum(1)
        rng = np.random.default_rng(seed)
        names: list[str] = []
        rows: list[list[float]] = []
        for _ in range(draws):
            model = wide_model(fit)
            layers = forecast_layers(model)
            names = [name for name, _ in layers]
            rows.append([])
            for _, layer in layers:
                _randomise(layer, rng)
                after = factor_heat(opened, book, target, model)["parts"].values.sum(1)
                rows[-1].append(_rank_correlation(before, after))
        n_cells = int(np.isfinite(before).sum())
        attrs = {"units": "1", "long_name": "Spearman correlation with the fit's map"}
        labels = {DRAW: np.arange(draws), LAYER: names}
        found.append(xr.DataArray(rows, labels, (DRAW, LAYER), "correlation", attrs))
    return HeatMapSanity(join_chains(found, fits), n_cells, target, seed)


def forecast_layers(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return the layers that a forecast runs and that have weights, from the output back."""
    found = [
        (name or "model", layer)
        for name, layer in model.named_modules()
        if name.split(".")[0] not in _TRAINING_ONLY
        and any(True for _ in layer.parameters(recurse=False))
    ]
    return found[::-1]


@torch.no_grad()
def _randomise(layer: nn.Module, rng: np.random.Generator) -> None:
    """Draw each parameter of a layer anew; a single number, which has no spread, stays."""
    for parameter in layer.parameters(recurse=False):
        values = parameter.numpy()
        drawn = rng.normal(values.mean(), values.std(), values.shape)
        parameter.copy_(torch.from_numpy(np.asarray(drawn)))


def _rank_correlation(before: np.ndarray, after: np.ndarray) -> float:
    """Return the Spearman correlation over cells with a value; NaN where one side is constant."""
    kept = np.isfinite(before) & np.isfinite(after)
    one, two = before[kept], after[kept]
    if one.size < 2 or np.ptp(one) == 0.0 or np.ptp(two) == 0.0:
        return float("nan")
    return float(spearmanr(one, two).statistic)
