r"""One-forms of exposure: what a small move of exposures is worth, ``omega = omega_j dbeta_j``.

Differentials of functions are exact: their integral depends on the two ends alone, and around a
loop it is 0. The others here are not, and their exterior derivative
``(d omega)_ij = d_i omega_j - d_j omega_i`` says by how much, per unit of area enclosed.

A form that is not exact says that an accounting of value depends on the order of trades. Nobody
pays it out: moving exposures is not paid by ``omega``, and returns stay random all the way. So
no loop integral of these forms is an arbitrage or a riskless profit.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import grad, jacfwd, vmap

from nfi_pyro.distributions.law_jets import Pricing
from nfi_pyro.distributions.mixture import MixtureOfNormals
from nfi_pyro.errors import ShapeError, SpecError

Form = Callable[[Tensor], Tensor]
"""Exposures (..., factor) to components (..., factor)."""
TwoForm = Callable[[Tensor], Tensor]
"""Exposures (..., factor) to antisymmetric components (..., factor, factor)."""
Function = Callable[[Tensor], Tensor]
"""Exposures (..., factor) to values (...)."""


def gradient_form(function: Function) -> Form:
    """Return the differential of a function of exposures: exact, 0 around every loop.

    Parameters
    ----------
    function : callable
        One value for exposures (factor,), differentiable by `torch.func`.

    Raises
    ------
    ShapeError
        When it is evaluated, if a point has not one value.
    """

    def one(point: Tensor) -> Tensor:
        value = function(point)
        if value.ndim:
            raise ShapeError(
                f"a function of exposures must have one value at a point; got shape "
                f"{tuple(value.shape)}. Sum or squeeze it."
            )
        return value

    return _by_row(grad(one))


def sharpe_form(pricing: Pricing) -> Form:
    r"""Return ``df / sigma``: expected return per unit of risk of a small move, dimensionless.

    f is the mean of the law at the exposures and sigma its standard deviation. Its exterior
    derivative is ``-dsigma ^ df / sigma^2``, 0 exactly where mean and risk are functions of each
    other. Around a loop it adds up changes of expected return, each in units of the risk of the
    moment; what is left says that risk was not the same where return was added and where it was
    given up. It is not the change of the ratio f / sigma, which is 0 around a loop, and no
    profit: expected return comes back to where it was.

    Parameters
    ----------
    pricing : callable
        Exposures (..., factor) to logits, loc and log scale, as for `FisherManifold`.
    """

    def moments(point: Tensor) -> tuple[Tensor, Tensor]:
        logits, loc, log_scale = pricing(point)
        law = MixtureOfNormals(logits, loc, log_scale.exp(), validate_args=False)
        return law.mean, law.variance.sqrt()

    slope = grad(moments, has_aux=True)

    def one(point: Tensor) -> Tensor:
        gradient, risk = slope(point)
        return gradient / risk

    return _by_row(one)


def premium_form(level: Tensor, slope: Tensor) -> Form:
    r"""Return estimated premia as a form: ``lambda_j(beta) = level_j + sum_i slope_ji beta_i``.

    Premia estimated factor by factor need not be the derivatives of any one expected return. The
    curl ``slope_ji - slope_ij`` at (i, j) measures that disagreement: an inconsistency of the
    estimates or of the cross-section of prices, within their sampling error in the first place.
    It is no trade: between two assets of equal exposures there is nothing to collect. Premia that
    are other functions of exposure are forms as they are.

    Parameters
    ----------
    level : Tensor, shape (factor,)
        Premium by unit of exposure at exposure 0, decimal return.
    slope : Tensor, shape (factor, factor)
        Change of the premium of the first factor by unit of exposure to the second.

    Raises
    ------
    ShapeError, SpecError
        If the shapes do not fit, or a value is not finite.
    """
    constant, tilt = (torch.as_tensor(part).detach().to(torch.float64) for part in (level, slope))
    if constant.ndim != 1 or tilt.shape != (len(constant), len(constant)):
        raise ShapeError(
            f"level and slope must be (factor,) and (factor, factor); got shapes "
            f"{tuple(constant.shape)} and {tuple(tilt.shape)}. Take one date."
        )
    if not bool(torch.isfinite(constant).all() and torch.isfinite(tilt).all()):
        raise SpecError(
            "level and slope must be finite; got a NaN or an infinity. Leave such factors out."
        )
    return lambda beta: constant + beta @ tilt.mT


def carry_form(
    value: Callable[[Tensor, Tensor], Tensor], premium: Callable[[Tensor, Tensor], Tensor]
) -> Form:
    r"""Return ``f dt + lambda_j dbeta_j`` on points (time, exposures), (..., 1 + factor).

    Waiting is worth the expected return f, moving is worth the premia. The exterior derivative
    has ``d_t lambda_j - d_j f`` in its first row and the curl of the premia in the others. The
    units only fit if premia are a value by exposure and f the same value by unit of time.

    Parameters
    ----------
    value, premium : callable
        Time (...) and exposures (..., factor) to f, (...), and to lambda, (..., factor).
    """

    def form(point: Tensor) -> Tensor:
        time, beta = point[..., 0], point[..., 1:]
        return torch.cat([value(time, beta).unsqueeze(-1), premium(time, beta)], dim=-1)

    return form


def exterior_derivative(form: Form) -> TwoForm:
    """Return the curl of a form: exposures (..., factor) to (..., factor, factor).

    ``[i, j] = d_i omega_j - d_j omega_i``, antisymmetric; what the form adds up to around a small
    loop from i to j, per unit of area.

    Parameters
    ----------
    form : callable
        Differentiable by `torch.func`.
    """

    def one(point: Tensor) -> Tensor:
        jacobian = jacfwd(form)(point)  # (omega_j, d_i)
        return jacobian.mT - jacobian

    return _by_row(one)


def _by_row(one: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Return a function of points (factor,) for exposures with leading axes."""

    def every(beta: Tensor) -> Tensor:
        if beta.ndim == 1:
            return one(beta)
        found = vmap(one)(beta.reshape(-1, beta.shape[-1]))
        return found.reshape(*beta.shape[:-1], *found.shape[1:])

    return every
