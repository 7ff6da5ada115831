"""One date of a fit as a differentiable function of its inputs, and the pass over such dates."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from nfi_pyro.attribution.book_moments import CopulaColumns, unit_of
from nfi_pyro.data.panel import Panel
from nfi_pyro.data.training.windows import PanelBatch
from nfi_pyro.dims import ASSET, DATE, FACTOR, FEATURE, LAG
from nfi_pyro.distributions.factor_mixture import FactorMixture
from nfi_pyro.distributions.pricing import PricingFunction
from nfi_pyro.errors import SpecError
from nfi_pyro.factor_vae import FactorVAE
from nfi_pyro.nets.predictor import Trunk
from nfi_pyro.nets.standardise import with_intercept
from nfi_pyro.nfi import NFI
from nfi_pyro.posterior.blocks import DateRange, PanelPass, open_pass
from nfi_pyro.posterior.dated_weights import DatedWeights
from nfi_pyro.posterior.wide import wide_batch, wide_model
from nfi_pyro.svi.protocol import ExposurePricing
from nfi_pyro.svi.trained import SVIFit

PRIORS = ("moves", "held")


@dataclass(frozen=True)
class ExplainedDate:
    """What a fit says of one date, as a function of what its networks take, float64.

    Attributes
    ----------
    model : nn.Module
        The fit's, in double precision, without gradients, last layers at their location.
    inputs : Tensor, shape (lag, row, feature)
        Standardised features of the assets that entered, oldest lag first; or, of a model of given
        exposures, those exposures as its pricing function takes them, one lag.
    kept : ndarray of bool, shape (asset,)
        Assets that entered, in the order of rows.
    date : numpy.datetime64
    return_scale : float
        Label unit per unit of the model.
    function : PricingFunction or None
        Of a model of given exposures.
    columns : CopulaColumns or None
        How assets depend on each other, where a copula says it.
    """

    model: Any
    inputs: Tensor
    kept: np.ndarray
    date: np.datetime64
    return_scale: float
    function: PricingFunction | None
    columns: CopulaColumns | None

    def law(self, inputs: Tensor, *, held: bool = False) -> FactorMixture:
        """Return the law at other inputs (node, lag, row, feature), one batch cell per node.

        In units of `return_scale`, in the network's own factors. The factors' law follows from the
        inputs of all assets, see `law_of_hidden`; with `held` it is that of the date.
        """
        if self.function is not None:
            return self.priced(inputs[:, -1])
        return self.law_of_hidden(self.hidden(inputs), held=held)

    def hidden(self, inputs: Tensor) -> Tensor:
        """Return the state of each asset after the window, (node, row, hidden)."""
        nodes, lags, rows, features = inputs.shape
        side_by_side = inputs.transpose(0, 1).reshape(lags, nodes * rows, features)
        return self.model.extractor(side_by_side, 1).view(nodes, rows, -1)

    def law_of_hidden(self, hidden: Tensor, *, held: bool = False) -> FactorMixture:
        """Return the law at states (node, row, hidden) of the assets.

        The factors' prior is made from an average of the states. What moves is the states: the
        weights of the average are those of the date (`gates`), because attention jumps where its
        last positive score goes (then it turns uniform), and no gradient sees a jump. Where all
        assets are the same, the weights do not matter, and the law is the model's own.
        """
        parts = self.model(Trunk(hidden, self._pooled(hidden)))
        if isinstance(self.model, NFI):
            beta, (logits, loc, scale), prior_loc, prior_scale = parts
        else:
            mean, deviation, beta, prior_loc, prior_scale = parts
            loc, scale = mean.unsqueeze(-1), deviation.unsqueeze(-1)
            logits = torch.zeros_like(loc)
        if held:
            prior_loc, prior_scale = (own.expand_as(prior_loc) for own in self.factors)
        return FactorMixture(logits, loc, scale, beta, prior_loc, prior_scale)

    def priced(self, beta: Tensor) -> FactorMixture:
        """Return the law at exposures (node, row, factor), the factors' law held.

        Of a model that prices exposures; in the network's own factors, whose reported order is
        `factor_order`.
        """
        columns, design = beta, "exposures"
        if self.function is None:
            logits, own_loc, own_scale = self.model.network(beta)
        else:
            logits, own_loc, own_scale = self.function.specific(beta)
            design = self.function.design
        if design != "exposures":
            columns = with_intercept(beta) if design == "intercept" else beta[..., :0]
        loc, scale = (own.expand(len(beta), columns.shape[-1]) for own in self.factors)
        return FactorMixture(logits, own_loc, own_scale, columns, loc, scale)

    @cached_property
    def state(self) -> Tensor:
        """State of each asset after its window, (row, hidden); of a model that reads windows."""
        with torch.no_grad():
            return self.hidden(self.inputs[None])[0]

    @cached_property
    def gates(self) -> Tensor:
        """Attention weights of the date, (row, head); each head's sum to 1."""
        present = torch.ones(1, len(self.state), dtype=torch.bool, device=self.state.device)
        with torch.no_grad():
            return self.model.predictor.attention.weights(self.state[None], present)[0]

    @cached_property
    def factors(self) -> tuple[Tensor, Tensor]:
        """Loc and scale of the date's factors, each (factor,), as the networks have them."""
        if self.function is not None:
            return self.function.factor_loc, self.function.factor_scale
        with torch.no_grad():
            loc, scale = self.model.predictor.head(self._pooled(self.state[None]))
        return loc[0], scale[0]

    @cached_property
    def beta(self) -> Tensor:
        """Exposures of the assets, (row, factor), as the networks have them."""
        if self.function is not None:
            return self.inputs[-1]
        with torch.no_grad():
            return self.model.beta(self.state)

    @property
    def factor_order(self) -> Tensor:
        """Place in the networks' factors of each reported factor, (factor,)."""
        if isinstance(self.model, NFI):
            return self.model.canonical.order
        return torch.arange(self.beta.shape[-1])

    def _pooled(self, hidden: Tensor) -> Tensor:
        """Return the market's representations (node, head, hidden), attention weights held."""
        attention = self.model.predictor.attention
        average = torch.einsum("rk,nrh->nkh", self.gates, hidden)
        values = torch.einsum("nke,khe->nkh", average, attention.value_weight)
        return values + attention.value_bias


@dataclass(frozen=True)
class ExplainedPass:
    """Dates of a panel as `ExplainedDate`s, one in memory at a time.

    Attributes
    ----------
    fit : SVIFit
    visit : PanelPass
    features, factors : tuple of str
        Names of the inputs, and of the exposures.
    """

    fit: SVIFit
    visit: PanelPass
    features: tuple[str, ...]
    factors: tuple[str, ...]

    @property
    def dates(self) -> np.ndarray:
        """Dates visited, (date,)."""
        return self.visit.dates

    @property
    def assets(self) -> np.ndarray:
        """Assets of the panel, (asset,)."""
        return self.visit.windows.assets

    @property
    def lags(self) -> np.ndarray:
        """Dates before the signal date, from 0, (lag,)."""
        return np.arange(self.visit.windows.lags)

    def explained(self, model: Any | None = None) -> Iterator[ExplainedDate]:
        """Yield the dates in order, by the fit's networks or by others of the same kind.

        Parameters
        ----------
        model : nn.Module, optional
            As `wide_model` returns; the fit's by default.
        """
        model = wide_model(self.fit) if model is None else model
        windows, span = self.visit.windows, self.visit.span
        places = range(span.start, span.stop, span.step or 1)
        steps = windows.stream((place, place + 1) for place in places)
        for place, (batch, _) in zip(places, steps, strict=True):
            kept, function, columns = batch.tradable[0], None, None
            inputs = batch.features[:, kept].double()
            if model.uses_exposures:
                inputs, function = _given(model, batch)
                columns = CopulaColumns.of(self.fit.copula, inputs[-1])
            yield ExplainedDate(
                model=model,
                inputs=inputs,
                kept=kept.numpy(),
                date=windows.dates[place],
                return_scale=self.fit.return_scale,
                function=function,
                columns=columns,
            )

    def walk(
        self, book: DatedWeights, table: xr.Dataset, model: Any | None = None
    ) -> Iterator[tuple[int, ExplainedDate, Tensor]]:
        """Yield position, date and weights (row,) where an asset of the book has a law.

        `uncovered` of the table is filled on the way.
        """
        for place, day in enumerate(self.explained(model)):
            own = book.on(place, day.kept)
            if own is not None:
                table["uncovered"].values[place] = own.uncovered
                yield place, day, torch.from_numpy(own.weights)

    def empty_table(
        self,
        dims: Mapping[str, tuple[str, ...]],
        units: Mapping[str, str] | None = None,
        **labels: Sequence[str],
    ) -> xr.Dataset:
        """Return variables by date as they are where no asset of the book has a law.

        NaN, but for `uncovered`, which is 1 and there in any case.

        Parameters
        ----------
        dims : mapping of str to tuple of str
            Dimensions of each variable after the date.
        units : mapping of str to str, optional
            Of variables that are not in the fit's unit.
        **labels : sequence of str
            Coordinates of dimensions other than asset, lag, feature and factor.
        """
        known: dict[str, Any] = {DATE: self.dates, ASSET: self.assets, LAG: self.lags}
        known |= {FEATURE: list(self.features), FACTOR: list(self.factors)}
        known |= {dim: list(names) for dim, names in labels.items()}
        share = {"units": "share of absolute weight"}
        variables: dict[str, Any] = {"uncovered": (DATE, np.ones(len(self.dates)), share)}
        for name, others in dims.items():
            own = (DATE, *others)
            values = np.full([len(known[dim]) for dim in own], np.nan)
            variables[name] = (own, values, {"units": (units or {}).get(name, unit_of(self.fit))})
        used = {DATE}.union(*dims.values())
        return xr.Dataset(variables, {dim: known[dim] for dim in known if dim in used})


def open_explained(fit: SVIFit, panel: Panel, dates: DateRange | None) -> ExplainedPass:
    """Return the dates of a panel as functions of a fit's inputs.

    Raises
    ------
    SpecError
        If the model is none whose networks are known here.
    SplitError, PanelError
        If no date has a full window, or the panel is not the fit's kind.
    """
    model = fit.model
    if not isinstance(model, NFI | FactorVAE | ExposurePricing):
        raise SpecError(
            "an explained model must be one of factor_vae, nfi, mixture_pricing, neural_factor "
            f"and linear_factor; got {model.name}. Fit one of those."
        )
    visit = open_pass(fit, panel, dates)
    names = [str(name) for name in panel["feature"].values]
    factors = fit.provenance["factors"]
    if model.uses_exposures:
        names = factors = fit.provenance["exposures"]["names"]
    return ExplainedPass(fit, visit, tuple(names), tuple(factors))


def check_prior(prior: str) -> None:
    """Refuse an unknown word for what the factors' prior does.

    Raises
    ------
    SpecError
    """
    if prior not in PRIORS:
        raise SpecError(f"prior must be one of {', '.join(PRIORS)}; got {prior!r}. Use moves.")


def _given(model: Any, batch: PanelBatch) -> tuple[Tensor, PricingFunction]:
    """Return exposures (1, row, factor) as the pricing function takes them, and the function."""
    with torch.no_grad():
        context = model.context(wide_batch(batch))
        return model.exposures(context)[:, batch.tradable[0]], model.pricing(context, 0)
