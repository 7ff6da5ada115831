"""Fits of one model under a penalty of rising weight, to choose it on the validation dates."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from nfi_pyro.data.panel import Panel
from nfi_pyro.data.splits import DateSplit
from nfi_pyro.errors import SpecError, name_places
from nfi_pyro.nets.canonical import CanonicalForm
from nfi_pyro.nets.penalty import Penalty
from nfi_pyro.nets.pricing import Perceptron
from nfi_pyro.svi.config import SVIConfig
from nfi_pyro.svi.fit import fit_svi
from nfi_pyro.svi.trained import SVIFit

KINDS = tuple(Penalty.model_fields)
ACTIVE_SHARE = 0.05


@dataclass(frozen=True)
class PenaltyPath:
    """A fit for each weight of a penalty.

    Attributes
    ----------
    kind : {"l1", "l2", "group", "smooth"}
    fits : tuple of SVIFit
        By rising weight.
    table : Dataset over (penalty,)
        Weights as coordinate `penalty`; `validation_log_score` (nats per cell, training-sd units)
        and `validation_rank_ic` at `best_epoch` (from 1; 0 and NaN when none had ended),
        `n_active` factors, whose `factor_norm` (penalty, factor) is above 5 percent of the
        largest. The norm is of all weights by which a factor enters alpha, in the exposures as
        the network takes them: it compares factors whose exposures have one scale, as those that
        a model standardises have. Where exposures are learned, a small norm may stand against
        large exposures, and z0 of one fit is not z0 of another.
    """

    kind: str
    fits: tuple[SVIFit, ...]
    table: xr.Dataset

    @property
    def best(self) -> SVIFit:
        """The fit with the highest validation log score; of equal ones the most penalised."""
        return self.fits[self._best_place]

    @property
    def best_penalty(self) -> float:
        """The weight of `best`."""
        return float(self.table["penalty"].values[self._best_place])

    @property
    def _best_place(self) -> int:
        scores = self.table["validation_log_score"].values[::-1]
        return len(scores) - 1 - int(np.argmax(np.where(np.isnan(scores), -np.inf, scores)))


def fit_penalty_path(
    model: Any,
    panel: Panel,
    *,
    kind: str,
    values: Sequence[float],
    split: DateSplit | None = None,
    config: SVIConfig | None = None,
    seed: int = 0,
) -> PenaltyPath:
    """Return a fit of the model under each weight of one penalty.

    Each fit starts from the same weights, drawn by `seed`, and none from another fit: it is the
    fit that `fit_svi` returns with that weight, to the bit, whatever the other values are.
    The other penalties stay as in the model's spec. Ctrl-C ends the path with the fit it
    interrupts.

    Parameters
    ----------
    model : PricingModel
        A recipe as in `fit_svi`, whose spec has `penalty`: nfi, mixture_pricing, neural_factor.
    panel : Panel
    kind : {"l1", "l2", "group", "smooth"}
        See `Penalty`.
    values : sequence of float
        Weights >= 0, strictly increasing; nats per observed cell for a penalty of 1.
    split, config, seed
        As in `fit_svi`. The validation dates choose the weight, so that the validation score of
        the best fit is optimistic.

    Returns
    -------
    PenaltyPath

    Raises
    ------
    SpecError
        If the spec has no penalty, the kind is unknown, or the weights are out of range or order.
    PanelError, SplitError, NonFiniteLossError
        As in `fit_svi`.
    """
    weights = _check(model, kind, values)
    fits: list[SVIFit] = []
    for weight in weights:
        penalty = model.spec.penalty.model_copy(update={kind: weight})
        recipe = type(model)(model.spec.model_copy(update={"penalty": penalty}), seed=seed)
        fits.append(fit_svi(recipe, panel, split=split, config=config, seed=seed))
        if fits[-1].status == "interrupted":
            break
    return PenaltyPath(kind, tuple(fits), _table(kind, weights[: len(fits)], fits))


def factor_norms(model: nn.Module) -> Tensor:
    """Return the norm of all weights by which each factor enters alpha, (factor,).

    In the order of the model's factors, in the exposures as the network takes them.

    Raises
    ------
    SpecError
        If the model has no network alpha.
    """
    found = [part for part in model.modules() if isinstance(part, Perceptron)]
    if not found:
        raise SpecError(
            f"a model must have a pricing network for norms by factor; got "
            f"{type(model).__name__}. Use nfi, mixture_pricing or neural_factor."
        )
    norms = found[0].factor_norms().detach()
    forms = [part for part in model.modules() if isinstance(part, CanonicalForm)]
    return norms[forms[0].order] if forms else norms


def _check(model: Any, kind: str, values: Sequence[float]) -> list[float]:
    """Return the weights as floats, after a look at all three."""
    if not isinstance(getattr(model.spec, "penalty", None), Penalty):
        raise SpecError(
            f"a penalty path must be of a model whose spec has penalty; got {model.name}. Use "
            "nfi, mixture_pricing or neural_factor."
        )
    if kind not in KINDS:
        raise SpecError(f"kind must be one of {', '.join(KINDS)}; got {kind!r}. Choose one.")
    weights = [float(value) for value in values]
    wrong = [weight for weight in weights if not (np.isfinite(weight) and weight >= 0.0)]
    if wrong or not weights:
        raise SpecError(
            f"values must be finite weights >= 0, at least one; got {name_places(wrong)} among "
            f"{len(weights)}. Pass for example [0, 0.01, 0.1]."
        )
    falls = [place for place in range(1, len(weights)) if weights[place] <= weights[place - 1]]
    if falls:
        raise SpecError(
            f"values must strictly increase; got {weights[falls[0]]} after "
            f"{weights[falls[0] - 1]}. Sort them."
        )
    return weights


def _table(kind: str, weights: list[float], fits: list[SVIFit]) -> xr.Dataset:
    """Return the table of `PenaltyPath`."""
    norms = torch.stack([factor_norms(fit.model) for fit in fits]).double().numpy()
    epochs = [int(fit.history.attrs["best_epoch"]) for fit in fits]
    curves = {
        name: [
            float(fit.history[name].sel(epoch=epoch)) if epoch else np.nan
            for fit, epoch in zip(fits, epochs, strict=True)
        ]
        for name in ("validation_log_score", "validation_rank_ic")
    }
    first = fits[0]
    names = [f"z{k}" for k in range(norms.shape[1])]
    if first.model.uses_exposures:
        names = first.provenance["exposures"]["names"]
    active = (norms > ACTIVE_SHARE * norms.max(axis=1, keepdims=True)).sum(axis=1)
    nats = {"units": "nats per observed cell, returns in training-sd units"}
    return xr.Dataset(
        {
            "validation_log_score": ("penalty", curves["validation_log_score"], nats),
            "validation_rank_ic": ("penalty", curves["validation_rank_ic"], {"units": "1"}),
            "best_epoch": ("penalty", epochs, {"units": "1"}),
            "n_active": ("penalty", active, {"units": "1"}),
            "factor_norm": (("penalty", "factor"), norms, {"units": "1"}),
        },
        coords={"penalty": ("penalty", weights, {"kind": kind}), "factor": names},
        attrs={"kind": kind, "model": str(first.model.name), "active_share": ACTIVE_SHARE},
    )
