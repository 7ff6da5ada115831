"""Penalties on a pricing function: size, sparsity by factor, and curvature."""

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from nfi_pyro.nets.pricing import Perceptron

MOST_POINTS = 256


class Penalty(BaseModel):
    """Weights of the penalties on alpha, each in nats per observed cell for a penalty of 1.

    Attributes
    ----------
    l1, l2 : float
        On the sum of moduli and of squares of the network's weights (no biases).
    group : float
        On the sum over factors of the norm of all weights by which the factor enters: the group
        lasso, which drives whole factors out.
    smooth : float
        On the mean squared Frobenius norm of the Hessian of alpha over the block's exposures
        (at most 256 of them, evenly spaced): towards the linear model.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    l1: float = Field(default=0.0, ge=0.0)
    l2: float = Field(default=0.0, ge=0.0)
    group: float = Field(default=0.0, ge=0.0)
    smooth: float = Field(default=0.0, ge=0.0)

    @property
    def active(self) -> bool:
        """Whether any weight is above 0."""
        return any(value > 0.0 for value in self.model_dump().values())

    def evaluate(self, alpha: Perceptron, beta: Tensor, present: Tensor) -> Tensor:
        """Return the penalty, shape (), nats per observed cell.

        Parameters
        ----------
        alpha : Perceptron
        beta : Tensor, shape (date, asset, factor)
        present : Tensor of bool, shape (date, asset)
            Where exposures count.
        """
        total = beta.new_zeros(())
        if self.l1:
            total = total + self.l1 * sum(weight.abs().sum() for weight in alpha.weights())
        if self.l2:
            total = total + self.l2 * sum(weight.square().sum() for weight in alpha.weights())
        if self.group:
            total = total + self.group * alpha.factor_norms().sum()
        points = beta[present]
        if self.smooth and len(points):
            chosen = points[:: -(-len(points) // MOST_POINTS)]
            hessian = alpha.jet(chosen).hessian
            total = total + self.smooth * hessian.square().sum((-1, -2)).mean()
        return total
