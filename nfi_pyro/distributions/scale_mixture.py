"""Student-t noise as a finite scale mixture of normals, so that every law is one kind of law."""

from functools import cache

import numpy as np
from scipy.special import roots_genlaguerre

from nfi_pyro.errors import SpecError

N_COMPONENTS = 8


@cache
def student_t_mixture(
    degrees_of_freedom: float, n_components: int = N_COMPONENTS
) -> tuple[np.ndarray, np.ndarray]:
    r"""Return weights and scales (component,) of a normal mixture close to a Student-t.

    A t variable of unit scale is ``N(0, 1 / lambda)`` with ``lambda ~ Gamma(nu / 2, nu / 2)``.
    The integral over lambda is replaced by generalised Gauss-Laguerre quadrature, with the weight
    function divided by ``lambda^2`` so that total weight and variance ``nu / (nu - 2)`` are both
    exact. Components are ordered by scale. Beyond the widest component the tail is Gaussian; for
    8 components that begins at 10 (nu = 5) to 17 (nu = 3) scales, where the t itself has a
    probability below 1e-3 (nu = 3) or 1e-4 (nu = 5).

    Parameters
    ----------
    degrees_of_freedom : float
        nu > 2: the variance must exist.
    n_components : int

    Raises
    ------
    SpecError
        If `degrees_of_freedom` is not above 2.
    """
    if not degrees_of_freedom > 2.0:
        raise SpecError(
            f"degrees_of_freedom must be > 2, or returns have no variance; got "
            f"{degrees_of_freedom}. Use 4."
        )
    half = 0.5 * degrees_of_freedom
    nodes, weights = roots_genlaguerre(n_components, half - 2.0)
    weights = weights * nodes
    scales = np.sqrt(half / nodes)
    order = np.argsort(scales)
    return (weights / weights.sum())[order], scales[order]
