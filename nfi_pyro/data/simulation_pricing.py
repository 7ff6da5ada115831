"""A known pricing mechanism: alpha and the noise as smooth functions of an asset's exposures."""

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit

SPECIFIC_SPREAD = 0.4  # log range of the specific scale when it depends on features or exposures
_STEEPNESS = 2.0  # of alpha's tanh
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(80)
_TANH_SPREAD = float(np.sqrt((_WEIGHTS * np.tanh(_STEEPNESS * _NODES) ** 2).sum() / _WEIGHTS.sum()))


@dataclass(frozen=True, eq=False)
class TrueMechanism:
    r"""What alpha, scale and tail share are at any exposure: one mechanism for all assets.

    With ``u = (beta - centre) / spread``, standard normal with correlation C, and d a direction
    of unit variance: ``alpha(beta) = (q(u) + tanh(2 d.u) / t) / sqrt 2``, with q a quadratic form
    with interactions, less its mean; q and ``tanh / t`` have variance 1 and are uncorrelated, so
    alpha has mean 0 and variance 1 over the simulated cells. About half of the variance of tanh
    is that of a linear function.

    Attributes
    ----------
    centre, precision : ndarray, shape (factor,)
        Mean exposure, and one over its standard deviation (0 for an exposure that does not vary).
    quadratic : ndarray, shape (factor, factor)
        Symmetric, of q.
    level : float
        Mean of ``u' quadratic u``.
    alpha_direction, specific_direction, tail_direction : ndarray, shape (factor,)
        Each d with ``var(d.u) = 1``.
    """

    centre: np.ndarray
    precision: np.ndarray
    quadratic: np.ndarray
    level: float
    alpha_direction: np.ndarray
    specific_direction: np.ndarray
    tail_direction: np.ndarray

    @classmethod
    def draw(
        cls, centre: np.ndarray, weight: np.ndarray, rng: np.random.Generator
    ) -> "TrueMechanism":
        """Return random coefficients for exposures ``centre + weight x``, x standard normal.

        Parameters
        ----------
        centre : ndarray, shape (factor,)
        weight : ndarray, shape (factor, feature)
            A row of zeros is an exposure that does not vary; nothing depends on it.
        rng : Generator
        """
        size = np.linalg.norm(weight, axis=1)
        precision = np.divide(1.0, size, out=np.zeros_like(size), where=size > 0)
        correlation = (weight @ weight.T) * np.outer(precision, precision)
        varies = (size > 0).astype(np.float64)
        raw = rng.standard_normal((len(size), len(size))) * np.outer(varies, varies)
        quadratic = raw + raw.T
        directions = rng.standard_normal((3, len(size))) * varies
        spread = np.sqrt(((directions @ correlation) * directions).sum(axis=1, keepdims=True))
        moved = quadratic @ correlation
        if varies.any():  # else there is nothing to scale
            quadratic = quadratic / np.sqrt(2.0 * np.trace(moved @ moved))
            directions = directions / spread
        return cls(
            centre, precision, quadratic, float(np.trace(quadratic @ correlation)), *directions
        )

    def alpha(self, beta: np.ndarray) -> np.ndarray:
        """Return alpha (...) at exposures (..., factor), in units of its standard deviation."""
        u = self._standard(beta)
        form = ((u @ self.quadratic) * u).sum(axis=-1) - self.level
        return (form + np.tanh(_STEEPNESS * (u @ self.alpha_direction)) / _TANH_SPREAD) / np.sqrt(2)

    def alpha_gradient(self, beta: np.ndarray) -> np.ndarray:
        """Return the gradient of `alpha` in beta, (..., factor)."""
        u = self._standard(beta)
        flat = np.tanh(_STEEPNESS * (u @ self.alpha_direction))[..., None]
        bend = _STEEPNESS * (1.0 - flat**2) * self.alpha_direction / _TANH_SPREAD
        return self.precision * (2.0 * (u @ self.quadratic) + bend) / np.sqrt(2)

    def specific_multiple(self, beta: np.ndarray) -> np.ndarray:
        """Return the specific scale (...) over its median, > 0."""
        return np.exp(SPECIFIC_SPREAD * np.tanh(self._standard(beta) @ self.specific_direction))

    def tail_share(self, beta: np.ndarray, typical: float) -> np.ndarray:
        """Return the weight (...) of the wide component, whose log odds move by up to 1."""
        return expit(logit(typical) + np.tanh(self._standard(beta) @ self.tail_direction))

    def _standard(self, beta: np.ndarray) -> np.ndarray:
        """Return exposures as standard normals, 0 where they do not vary."""
        return (beta - self.centre) * self.precision


def tail_noise(
    share: np.ndarray, *, ratio: float, offset: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return weight, loc and scale of a core and a wide normal, together of mean 0 and variance 1.

    Parameters
    ----------
    share : ndarray
        Weight of the wide component, any shape.
    ratio : float
        Its scale over that of the core.
    offset : float
        Its mean less that of the core, in scales of the core.

    Returns
    -------
    weight, loc, scale : ndarray, shape (..., 2)
        The core first.
    """
    weight = np.stack([1.0 - share, share], axis=-1)
    loc = np.stack([-share * offset, (1.0 - share) * offset], axis=-1)
    scale = np.stack([np.ones_like(share), np.full_like(share, ratio)], axis=-1)
    size = np.sqrt((weight * (scale**2 + loc**2)).sum(axis=-1, keepdims=True))
    return weight, loc / size, scale / size
