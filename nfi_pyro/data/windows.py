"""Date-major windows of a panel as tensor views: what a model may see, and what came after."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nfi_pyro.data.panel import Panel
from nfi_pyro.data.transforms import RobustZScore
from nfi_pyro.errors import PanelError, ShapeError


@dataclass(frozen=True)
class PanelBatch:
    """A block of consecutive dates, all of it known at the close of each date.

    Attributes
    ----------
    features : Tensor, shape (block + lags - 1, asset, feature)
        Standardised; the first ``lags - 1`` dates are history only. 0 where missing.
    tradable : Tensor of bool, shape (block, asset)
        Tradable on the date and finite at all `lags` dates of its window.
    date_index : Tensor of int64, shape (block,)
        Position of each date among the `n_dates` dates that the plate counts.
    n_dates : int
        Size of the ``date`` plate; the block is a subsample of it.
    """

    features: Tensor
    tradable: Tensor
    date_index: Tensor
    n_dates: int


@dataclass(frozen=True)
class Outcome:
    """What happened after the dates of a `PanelBatch`; never part of a batch or a context.

    Attributes
    ----------
    forward_return : Tensor, shape (block, asset)
        In units of the fit's return scale; 0 where not observed.
    observed : Tensor of bool, shape (block, asset)
        The return is known and the asset entered the date.
    """

    forward_return: Tensor
    observed: Tensor


class PanelWindows:
    """One standardised copy of a panel, from which every batch is a view.

    Parameters
    ----------
    panel : Panel
        Raw features; read, never changed.
    lags : int
        T, the number of dates in a window (the date itself is the last).
    scaler : RobustZScore
        Fitted on training dates.
    return_scale : float
        Returns are divided by it (decimal return per unit).
    device : torch.device or str
        Where the tensors live.

    Raises
    ------
    PanelError
        If the panel has fewer dates than `lags` or other features than the scaler.
    """

    def __init__(
        self,
        panel: Panel,
        *,
        lags: int,
        scaler: RobustZScore,
        return_scale: float,
        device: torch.device | str = "cpu",
    ) -> None:
        names = tuple(str(name) for name in panel["feature"].values)
        if names != scaler.features:
            missing = sorted(set(scaler.features) - set(names))
            extra = sorted(set(names) - set(scaler.features))
            raise PanelError(
                "the panel's features must be those of the fit, in order; missing "
                f"{missing[:5]}, unknown {extra[:5]}. Build the panel with the run's features."
            )
        if panel.sizes["date"] < lags:
            raise PanelError(
                f"a panel must hold at least {lags} dates for windows of {lags} lags; got "
                f"{panel.sizes['date']}. Give more history, or lower spec.lags."
            )
        self.lags = lags
        self.dates = panel["date"].values
        self.assets = panel["asset"].values
        self.return_scale = return_scale
        raw = panel["features"].values
        values = scaler.transform(raw)
        known = np.isfinite(values)
        known &= np.isfinite(raw)  # clipping has made infinities finite
        np.copyto(values, 0.0, where=~known)
        present = known.all(axis=2)
        self.present = present
        entered = panel["tradable"].values & _all_of_last(present, lags)
        returns = panel["forward_return"].values.astype(np.float64) / return_scale
        observed = np.isfinite(returns) & entered
        self.features = torch.from_numpy(values).to(device)
        self.entered = torch.from_numpy(entered).to(device)
        self.observed = torch.from_numpy(observed).to(device)
        scaled = np.where(observed, returns, 0.0).astype(np.float32)
        self.forward_return = torch.from_numpy(scaled).to(device)

    @property
    def first(self) -> int:
        """Position of the first date with a full window."""
        return self.lags - 1

    def batch(self, start: int, stop: int, *, span: slice | None = None) -> PanelBatch:
        """Return the block of dates ``start:stop`` as views.

        Parameters
        ----------
        start, stop : int
            Positions of the block in the panel; ``start`` is at least `first`.
        span : slice, optional
            Positions of all the dates that the plate counts; the block alone by default.

        Raises
        ------
        ShapeError
            If the block is empty or its first window would begin before the panel.
        """
        if start < self.first or stop <= start or stop > len(self.dates):
            raise ShapeError(
                f"a block of dates must lie in {self.first}:{len(self.dates)} and not be empty; "
                f"got {start}:{stop}. The first {self.first} dates are history only."
            )
        span = slice(start, stop) if span is None else span
        index = torch.arange(start - span.start, stop - span.start, device=self.features.device)
        return PanelBatch(
            features=self.features[start - self.first : stop],
            tradable=self.entered[start:stop],
            date_index=index,
            n_dates=span.stop - span.start,
        )

    def outcome(self, start: int, stop: int) -> Outcome:
        """Return what happened after the dates ``start:stop``, as views."""
        return Outcome(self.forward_return[start:stop], self.observed[start:stop])

    def blocks(self, span: slice, block: int) -> Iterator[tuple[int, int]]:
        """Yield consecutive blocks that cover the dates of `span` that have a full window."""
        for start in range(max(span.start, self.first), span.stop, block):
            yield start, min(start + block, span.stop)


def _all_of_last(present: np.ndarray, lags: int) -> np.ndarray:
    """Return (date, asset) true where the last `lags` dates are all present."""
    counts = np.cumsum(np.vstack([np.zeros_like(present[:1], dtype=np.int32), present]), axis=0)
    full = np.zeros_like(present)
    full[lags - 1 :] = counts[lags:] - counts[: len(counts) - lags] == lags
    return full
