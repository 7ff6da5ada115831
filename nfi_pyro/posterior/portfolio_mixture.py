"""The law of one portfolio's return under an equal-weight mixture of joint laws."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from nfi_pyro.distributions.mixture import MixtureOfNormals
from nfi_pyro.posterior.portfolio_law import PortfolioLaw, check_level, sampled_tail


@dataclass(frozen=True)
class PortfolioMixture:
    """Distribution of ``sum_i w_i r_i`` when one of several laws holds, each as likely.

    Attributes
    ----------
    members : tuple of PortfolioLaw
        The same portfolio on the same date under each law.
    """

    members: tuple[PortfolioLaw, ...]

    @property
    def date(self) -> np.datetime64:
        """Close at which it is known."""
        return self.members[0].date

    @property
    def mean(self) -> float:
        """Expected return."""
        return float(np.mean([law.mean for law in self.members]))

    @property
    def within_variance(self) -> float:
        """Mean of the members' variances, decimal return squared."""
        return float(np.mean([law.standard_deviation**2 for law in self.members]))

    @property
    def between_variance(self) -> float:
        """Variance of the members' means, decimal return squared: they disagree."""
        return float(np.mean([(law.mean - self.mean) ** 2 for law in self.members]))

    @property
    def variance(self) -> float:
        """Within plus between, decimal return squared."""
        return self.within_variance + self.between_variance

    @property
    def standard_deviation(self) -> float:
        """Standard deviation of the portfolio's return."""
        return float(np.sqrt(self.variance))

    @property
    def is_gaussian(self) -> bool:
        """Whether every member's law is normal: then the mixture is known in closed form."""
        return all(law.is_gaussian for law in self.members)

    def quantile(self, level: float, *, draws: int = 100_000, seed: int = 0) -> tuple[float, float]:
        """Return the return below which the portfolio's lies with probability `level`, and error.

        The standard error is 0 where all members are normal, see `value_at_risk`.
        """
        loss, error = self.value_at_risk(1.0 - level, draws=draws, seed=seed)
        return -loss, error

    def value_at_risk(
        self, level: float, *, draws: int = 100_000, seed: int = 0
    ) -> tuple[float, float]:
        """Return the loss exceeded with probability ``1 - level``, and its standard error.

        Positive is a loss. Exact with standard error 0 where all members are normal; otherwise
        from `draws` joint draws.
        """
        return self.tail_risks((level,), draws=draws, seed=seed)[0][0]

    def expected_shortfall(
        self, level: float, *, draws: int = 100_000, seed: int = 0
    ) -> tuple[float, float]:
        """Return the mean loss beyond the value at risk, and its standard error."""
        return self.tail_risks((level,), draws=draws, seed=seed)[0][1]

    def tail_risks(
        self, levels: Sequence[float], *, draws: int = 100_000, seed: int = 0
    ) -> list[tuple[tuple[float, float], tuple[float, float]]]:
        """Return `value_at_risk` and `expected_shortfall` of each level, from the same draws.

        Raises
        ------
        SpecError
            If a level is not strictly between 0 and 1.
        """
        for level in levels:
            check_level(level)
        if self.is_gaussian:
            law = self._normals()
            return [
                ((float(law.value_at_risk(a)), 0.0), (float(law.expected_shortfall(a)), 0.0))
                for a in levels
            ]
        losses = np.sort(-self.draw(draws, np.random.default_rng(seed)))
        return [sampled_tail(losses, level) for level in levels]

    def _normals(self) -> MixtureOfNormals:
        """Return the mixture of the members' normal laws, float64."""
        loc = torch.tensor([law.mean for law in self.members], dtype=torch.float64)
        scale = [law.standard_deviation for law in self.members]
        return MixtureOfNormals(
            torch.zeros_like(loc),
            loc,
            torch.tensor(scale, dtype=torch.float64),
            validate_args=False,
        )

    def draw(self, draws: int, generator: np.random.Generator) -> np.ndarray:
        """Return draws of the portfolio's return, shape (draw,), by member in turn.

        Each member gives the same number, to one: draws of all members together have the law of
        the mixture, with less Monte Carlo error than if members were drawn too.
        """
        sizes = share_draws(draws, len(self.members))
        return np.concatenate(
            [law.draw(size, generator) for law, size in zip(self.members, sizes, strict=True)]
        )


def share_draws(draws: int, n_members: int) -> list[int]:
    """Return how many of the draws each member gives, the first ones one more."""
    return [draws // n_members + (place < draws % n_members) for place in range(n_members)]
