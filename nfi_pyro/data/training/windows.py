"""Date-major windows of a panel as tensors: what a model may see, and what came after."""

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nfi_pyro.data.panel import Panel
from nfi_pyro.data.training.feature_rows import feature_rows
from nfi_pyro.data.training.transform_chain import TransformChain
from nfi_pyro.errors import PanelError, ShapeError

Step = tuple["PanelBatch", "Outcome"]
_AHEAD = 1  # blocks read in the background while one is in use


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
    exposures : Tensor, shape (block, asset, factor), optional
        The panel's own exposures; 0 where missing. None where the panel has none.
    """

    features: Tensor
    tradable: Tensor
    date_index: Tensor
    n_dates: int
    exposures: Tensor | None = None

    @property
    def given_exposures(self) -> Tensor:
        """Exposures of each date, (block, asset, factor): the panel's own, else its features."""
        if self.exposures is not None:
            return self.exposures
        return self.features[len(self.features) - len(self.tradable) :]


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
    """Standardised windows of a panel: views of one copy, or blocks read from disk.

    Parameters
    ----------
    panel : Panel
        Raw features; read, never changed. With features on disk (see `read_panel`) only the
        blocks in use are in memory.
    lags : int
        T, the number of dates in a window (the date itself is the last).
    transforms : TransformChain
        Fitted on training dates.
    return_scale : float
        Returns are divided by it (label unit per unit).
    device : torch.device or str
        Where the tensors live.
    use_exposures : bool
        Whether batches carry the panel's own exposures, where it has any: an asset then enters a
        date only with all of them.

    Raises
    ------
    PanelError
        If the panel has fewer dates than `lags` or other features than the transforms.
    """

    def __init__(
        self,
        panel: Panel,
        *,
        lags: int,
        transforms: TransformChain,
        return_scale: float,
        device: torch.device | str = "cpu",
        use_exposures: bool = False,
    ) -> None:
        transforms.require_features(tuple(str(name) for name in panel["feature"].values))
        if panel.sizes["date"] < lags:
            raise PanelError(
                f"a panel must hold at least {lags} dates for windows of {lags} lags; got "
                f"{panel.sizes['date']}. Give more history, or lower spec.lags."
            )
        self.lags = lags
        self.dates = panel["date"].values
        self.assets = panel["asset"].values
        self.return_scale = return_scale
        self.device = torch.device(device)
        self.rows = feature_rows(panel, transforms, device)
        self.present = self.rows.present
        self.exposures: Tensor | None = None
        if use_exposures and "exposures" in panel:
            given = panel["exposures"].to_numpy().astype(np.float32)
            known = np.isfinite(given)
            self.present = self.present & known.all(axis=2)
            self.exposures = torch.from_numpy(np.where(known, given, np.float32(0.0))).to(device)
        entered = panel["tradable"].values & _all_of_last(self.present, lags)
        returns = panel["forward_return"].values.astype(np.float64) / return_scale
        observed = np.isfinite(returns) & entered
        self.entered = torch.from_numpy(entered).to(device)
        self.observed = torch.from_numpy(observed).to(device)
        scaled = np.where(observed, returns, 0.0).astype(np.float32)
        self.forward_return = torch.from_numpy(scaled).to(device)

    @property
    def first(self) -> int:
        """Position of the first date with a full window."""
        return self.lags - 1

    def batch(self, start: int, stop: int, *, span: slice | None = None) -> PanelBatch:
        """Return the block of dates ``start:stop``, as views where features are in memory.

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
        return PanelBatch(
            features=self.rows.read(start - self.first, stop),
            tradable=self.entered[start:stop],
            date_index=torch.arange(start - span.start, stop - span.start, device=self.device),
            n_dates=span.stop - span.start,
            exposures=None if self.exposures is None else self.exposures[start:stop],
        )

    def outcome(self, start: int, stop: int) -> Outcome:
        """Return what happened after the dates ``start:stop``, as views."""
        return Outcome(self.forward_return[start:stop], self.observed[start:stop])

    def blocks(self, span: slice, block: int) -> Iterator[tuple[int, int]]:
        """Yield consecutive blocks that cover the dates of `span` that have a full window."""
        for start in range(max(span.start, self.first), span.stop, block):
            yield start, min(start + block, span.stop)

    def stream(
        self, blocks: Iterable[tuple[int, int]], *, span: slice | None = None
    ) -> Generator[Step, None, None]:
        """Yield the batch and the outcome of each block; the next are read in the background.

        The order and the values are those of `batch` and `outcome`. One reader thread stays ahead
        by one block; it ends with the iteration, also when that is left early.
        """
        if self.rows.resident:
            for start, stop in blocks:
                yield self.batch(start, stop, span=span), self.outcome(start, stop)
            return
        reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="panel-reader")
        ahead: deque[tuple[Future[PanelBatch], tuple[int, int]]] = deque()
        try:
            for start, stop in blocks:
                ahead.append((reader.submit(self.batch, start, stop, span=span), (start, stop)))
                if len(ahead) > _AHEAD:
                    yield self._next(ahead)
            while ahead:
                yield self._next(ahead)
        finally:
            reader.shutdown(wait=True, cancel_futures=True)

    def _next(self, ahead: "deque[tuple[Future[PanelBatch], tuple[int, int]]]") -> Step:
        future, block = ahead.popleft()
        return future.result(), self.outcome(*block)


def _all_of_last(present: np.ndarray, lags: int) -> np.ndarray:
    """Return (date, asset) true where the last `lags` dates are all present."""
    counts = np.cumsum(np.vstack([np.zeros_like(present[:1], dtype=np.int32), present]), axis=0)
    full = np.zeros_like(present)
    full[lags - 1 :] = counts[lags:] - counts[: len(counts) - lags] == lags
    return full
