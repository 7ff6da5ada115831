"""The pricing network: one smooth map from exposures to the law of an asset's own return."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from nfi_pyro.nets.jets import SMOOTH, Jet, perceptron_jet, perceptron_slope
from nfi_pyro.nets.law_jets import Jets, VectorJet, hidden_jet, join, weighted_mean

LOGIT_BOUND = 15.0


class SpecificLaw(NamedTuple):
    """A mixture of normals by component, each (..., component); scale > 0."""

    logits: Tensor
    loc: Tensor
    scale: Tensor


class FactorLayer(nn.Module):
    r"""First layer, split by factor before it is summed: ``a_h = sum_j W_jh beta_j + b_h``.

    The same map as a linear layer; `tokens` shows its summands ``W_jh beta_j``, a layer with a
    factor axis, which attribution needs.

    Parameters
    ----------
    n_factors, hidden_size : int
    """

    def __init__(self, n_factors: int, hidden_size: int) -> None:
        super().__init__()
        bound = n_factors**-0.5
        self.weight = nn.Parameter(torch.empty(n_factors, hidden_size).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(hidden_size).uniform_(-bound, bound))

    def tokens(self, beta: Tensor) -> Tensor:
        """Return what each factor adds to each hidden unit, (..., factor, hidden)."""
        return beta.unsqueeze(-1) * self.weight

    def forward(self, beta: Tensor) -> Tensor:
        """Return the sum over factors plus bias, (..., hidden)."""
        return beta @ self.weight + self.bias


class Perceptron(nn.Module):
    """A smooth trunk and a scalar output: `f_theta(beta)` of the deck, with exact derivatives.

    Parameters
    ----------
    n_factors, hidden_size, n_layers : int
        Inputs, width and number of hidden layers, >= 1.
    activation : str
        A key of `nfi_pyro.nets.jets.SMOOTH`.
    linear : bool
        Whether the output also has a linear term of its own, ``slope . beta``: the nested linear
        model. Redundant where a shared factor carries that term.
    """

    def __init__(
        self,
        n_factors: int,
        hidden_size: int,
        n_layers: int,
        activation: str,
        *,
        linear: bool,
    ) -> None:
        super().__init__()
        self.activation = activation
        self.first = FactorLayer(n_factors, hidden_size)
        self.deeper = nn.ModuleList(
            nn.Linear(hidden_size, hidden_size) for _ in range(n_layers - 1)
        )
        self.readout = nn.Linear(hidden_size, 1)
        self.slope = nn.Parameter(torch.zeros(n_factors)) if linear else None

    def trunk(self, beta: Tensor) -> Tensor:
        """Return the last hidden layer, (..., hidden)."""
        smooth = SMOOTH[self.activation]
        hidden = smooth(self.first(beta))[0]
        for layer in self.deeper:
            hidden = smooth(layer(hidden))[0]
        return hidden

    def read(self, hidden: Tensor, beta: Tensor) -> Tensor:
        """Return the output (...) given the last hidden layer and the exposures."""
        value = self.readout(hidden).squeeze(-1)
        return value if self.slope is None else value + beta @ self.slope

    def forward(self, beta: Tensor) -> Tensor:
        """Return the output, shape (...), from exposures (..., factor)."""
        return self.read(self.trunk(beta), beta)

    def jet(self, beta: Tensor) -> Jet:
        """Return value, gradient and Hessian in beta, in closed form (`perceptron_jet`)."""
        found = perceptron_jet(beta, self._layers(), self.readout.weight[0], self.activation)
        value, gradient = found.value + self.readout.bias[0], found.gradient
        if self.slope is not None:
            value, gradient = value + beta @ self.slope, gradient + self.slope
        return Jet(value, gradient, found.hessian)

    def vector_jet(self, beta: Tensor, order: int) -> VectorJet:
        """Return the output's derivatives up to `order`, 1 or 2, as those of one component."""
        if order > 1:
            jet = self.jet(beta)
            return VectorJet(
                jet.value[..., None], jet.gradient[..., None, :], jet.hessian[..., None, :, :]
            )
        layers, readout = self._layers(), self.readout.weight[0]
        value, gradient = perceptron_slope(beta, layers, readout, self.activation)
        value = value + self.readout.bias[0]
        if self.slope is not None:
            value, gradient = value + beta @ self.slope, gradient + self.slope
        return VectorJet(value[..., None], gradient[..., None, :], None)

    def weights(self) -> list[Tensor]:
        """Return everything a penalty on size may act on: no bias."""
        deeper = (layer.weight for layer in self._deeper())
        found: list[Tensor] = [self.first.weight, *deeper, self.readout.weight]
        return found if self.slope is None else [*found, self.slope]

    def _layers(self) -> list[tuple[Tensor, Tensor]]:
        """Return weight and bias of each hidden layer, in torch's layout."""
        deeper = [(layer.weight, layer.bias) for layer in self._deeper()]
        return [(self.first.weight.T, self.first.bias), *deeper]

    def _deeper(self) -> list[nn.Linear]:
        """Return the hidden layers after the first."""
        return [layer for layer in self.deeper if isinstance(layer, nn.Linear)]

    def factor_norms(self) -> Tensor:
        """Return the norm of all that a factor enters by, (factor,); 0 means it is not used."""
        squares = self.first.weight.square().sum(-1)
        if self.slope is not None:
            squares = squares + self.slope.square()
        return (squares + 1e-12).sqrt()


class MixtureHead(nn.Module):
    r"""Zero-mean mixture noise from hidden features: weights, offsets and ordered scales.

    ``logits = 15 tanh(x / 15)``; offsets ``delta_k`` less their weighted mean, so that
    ``sum_k pi_k delta_k = 0`` for every input and the mean of the law is the pricing function
    alone; ``log scale_1 = log(softplus(x) + floor)`` and each further log scale adds a softplus:
    components are ordered by scale, from the core to the tail, which rules out label switching.

    Parameters
    ----------
    hidden_size, n_components : int
    scale_floor : float
        Smallest scale, in units of the training return scale: a mixture's likelihood is unbounded
        as a scale goes to 0.
    """

    def __init__(self, hidden_size: int, n_components: int, *, scale_floor: float) -> None:
        super().__init__()
        self.scale_floor = scale_floor
        self.raw_scale = nn.Linear(hidden_size, n_components)
        with torch.no_grad():
            self.raw_scale.weight.mul_(0.1)
            self.raw_scale.bias.fill_(0.0)
            self.raw_scale.bias[0] = -0.5 if n_components > 1 else 0.5  # a variance below 1
        self.several = n_components > 1
        if self.several:
            self.logits = nn.Linear(hidden_size, n_components)
            self.offset = nn.Linear(hidden_size, n_components)
            with torch.no_grad():
                for layer in (self.logits, self.offset):
                    layer.weight.mul_(0.1)
                self.logits.bias.copy_(-torch.arange(n_components, dtype=torch.float32))
                self.offset.bias.fill_(0.0)

    def forward(self, hidden: Tensor, mean: Tensor) -> SpecificLaw:
        """Return the mixture around `mean` (...) from hidden features (..., hidden)."""
        raw = self.raw_scale(hidden)
        first = nn.functional.softplus(raw[..., :1]) + self.scale_floor
        if not self.several:
            return SpecificLaw(torch.zeros_like(first), mean.unsqueeze(-1), first)
        steps = nn.functional.softplus(raw[..., 1:]).cumsum(-1)
        scale = first * torch.cat([torch.ones_like(first), steps.exp()], dim=-1)
        logits = LOGIT_BOUND * torch.tanh(self.logits(hidden) / LOGIT_BOUND)
        offset = self.offset(hidden)
        centred = offset - (torch.softmax(logits, -1) * offset).sum(-1, keepdim=True)
        return SpecificLaw(logits, mean.unsqueeze(-1) + centred, scale)

    def jets(
        self, hidden: tuple[Tensor, Tensor, Tensor], weight: Tensor, mean: VectorJet, order: int
    ) -> Jets:
        """Return logits, loc and log scale with their derivatives; see `hidden_jet`, `Jets`."""

        def read(layer: nn.Linear) -> VectorJet:
            return hidden_jet(hidden, weight, layer.weight, layer.bias, order)

        raw = read(self.raw_scale)
        gate = torch.sigmoid(raw.value)
        soft, first = nn.functional.softplus(raw.value), gate * (1.0 - gate)
        floored = soft + self.scale_floor
        slope = gate / floored
        core = raw.through(floored.log(), slope, first / floored - slope.square()).at(slice(0, 1))
        if not self.several:
            return join(core + -core, mean, core)
        steps = raw.through(soft, gate, first).at(slice(1, None)).cumulate()
        tails = core + steps
        log_scale = VectorJet(
            torch.cat([core.value, tails.value], -1),
            torch.cat([core.first, tails.first], -2),
            None
            if core.second is None or tails.second is None
            else torch.cat([core.second, tails.second], -3),
        )
        logits = read(self.logits)
        bounded = torch.tanh(logits.value / LOGIT_BOUND)
        slope = 1.0 - bounded.square()
        logits = logits.through(LOGIT_BOUND * bounded, slope, -2.0 / LOGIT_BOUND * bounded * slope)
        offset = read(self.offset)
        return join(logits, mean + offset + -weighted_mean(logits, offset), log_scale)


class PricingNetwork(nn.Module):
    r"""``beta -> alpha(beta) + zero-mean mixture noise``: one mechanism for all assets.

    Alpha and the noise have a trunk each: what moves the mean and what moves the risk need not
    be the same, and attribution can tell them apart.

    Parameters
    ----------
    n_factors, hidden_size, n_layers, n_components : int
    activation : str
    scale_floor : float
        See `MixtureHead`.
    linear : bool
        See `Perceptron`.
    """

    def __init__(
        self,
        n_factors: int,
        *,
        hidden_size: int,
        n_layers: int,
        n_components: int,
        activation: str,
        scale_floor: float,
        linear: bool,
    ) -> None:
        super().__init__()
        self.alpha = Perceptron(n_factors, hidden_size, n_layers, activation, linear=linear)
        with torch.no_grad():
            self.alpha.readout.weight.mul_(0.1)
        self.first = FactorLayer(n_factors, hidden_size)
        self.activation = activation
        self.noise = MixtureHead(hidden_size, n_components, scale_floor=scale_floor)

    def forward(self, beta: Tensor) -> SpecificLaw:
        """Return the law of the specific part of the return, (..., component)."""
        hidden = SMOOTH[self.activation](self.first(beta))[0]
        return self.noise(hidden, self.alpha(beta))

    def jets(self, beta: Tensor, order: int) -> Jets:
        """Return logits, loc and log scale with their derivatives up to `order`, closed form.

        See `nfi_pyro.nets.law_jets.Jets` for the layout. Order 1 or 2.
        """
        hidden = SMOOTH[self.activation](self.first(beta))
        mean = self.alpha.vector_jet(beta, order)
        return self.noise.jets(hidden, self.first.weight.T, mean, order)
