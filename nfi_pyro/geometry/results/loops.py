"""Results about curves of exposures: integrals with their errors, and checks with their bounds."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class CurveIntegral:
    """An integral of a form along a curve, or over a surface that a loop bounds.

    Attributes
    ----------
    value : float
        In the form's unit times exposure: decimal return for the differential of a return.
    error : float
        What the last doubling of the quadrature changed; the finer value is kept.
    variation : float
        Integral of the absolute value: what `value` is the balance of. A value far below it has
        cancelled.
    n_points : int
        Nodes of the finest quadrature.
    converged : bool
        Whether `error` is within the tolerance times `variation`, or below 1e-14: rounding of
        what should be 0. A surface in `StokesCheck` may also take the loop's variation.
    """

    value: float
    error: float
    variation: float
    n_points: int
    converged: bool


@dataclass(frozen=True)
class ExactnessCheck:
    """Whether sensitivities around a loop add up to nothing, as those of one function must.

    A test of a model and its derivatives. Failing it is a fault of either, no arbitrage.

    Attributes
    ----------
    integral : CurveIntegral
    worst_gap : float
        Largest difference, at the ends of the loop's pieces, between the sum so far and the
        change of the function so far.
    allowance : float
        What quadrature and rounding may leave: the tolerance times the integral's variation, and
        16 units in the last place of the function.
    passed : bool
        Whether the integral converged, and its value and `worst_gap` are within the allowance.
    """

    integral: CurveIntegral
    worst_gap: float
    allowance: float
    passed: bool


@dataclass(frozen=True)
class StokesCheck:
    """A form around a loop against its exterior derivative through a surface in the loop.

    Attributes
    ----------
    loop, surface : CurveIntegral
    gap : float
        Value of `loop` minus that of `surface`.
    allowance : float
        Twice the tolerance times the larger of the two variations.
    passed : bool
        Whether both converged and the gap is within the allowance.
    """

    loop: CurveIntegral
    surface: CurveIntegral
    gap: float
    allowance: float
    passed: bool


@dataclass(frozen=True)
class TimeDecomposition:
    """The change of a value along a path of exposures while prices change too.

    ``change = along_exposure + along_time``. On a closed path `along_exposure` need not be 0: it
    is then `standing` minus `along_time`, the reward of having been elsewhere while prices moved.
    That is timing, known afterwards and risky, and no riskless profit.

    Attributes
    ----------
    change : float
        Value at the end minus value at the start, in the value's unit.
    along_exposure : float
        From exposures that moved, at the prices of the moment.
    along_time : float
        From prices that moved, at the exposures of the moment.
    standing : float
        Change of the value for who stays at the first exposures.
    carry : float
        Time integral of the value on the way: of an expected return by period, what was expected
        to be earned. In units of the value times the path's whole time, or dates.
    error : float
        By how much the two parts miss the change.
    converged : bool
        Whether the quadrature is within its tolerance; always, between dates.
    """

    change: float
    along_exposure: float
    along_time: float
    standing: float
    carry: float
    error: float
    converged: bool


@dataclass(frozen=True)
class GaugeAlpha:
    """GAT plug-in: expected log growth of a portfolio over each asset, at equal risk.

    Attributes
    ----------
    alpha : Tensor, shape (asset,)
        Log growth by period. Above 0 the portfolio is expected to outgrow the asset.
    growth : Tensor, shape (asset,)
        Expected log growth of each asset, by period.
    risk_price : Tensor, shape (factor,)
        Log growth by unit of exposure that `alpha` is net of.
    """

    alpha: Tensor
    growth: Tensor
    risk_price: Tensor
