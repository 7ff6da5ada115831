"""What is done once weights are trained: the best state, its canonical form, a copula."""

from collections.abc import Iterator
from typing import Any

import torch

from nfi_pyro.distributions.copula import GaussianCopula
from nfi_pyro.svi.dependence import fit_copula
from nfi_pyro.svi.loop import TrainingLoop
from nfi_pyro.svi.protocol import CanonicalModel

_MOST_CELLS = 1_000_000  # of the training dates, evenly spaced, that fix the canonical form


def finish(loop: TrainingLoop) -> GaussianCopula | None:
    """Put the best weights into the loop's model, finish it, and return its copula if it has one.

    A model with equivalent forms gets its canonical one; a model whose assets share no factor gets
    a Gaussian copula of the training dates' PITs.
    """
    model = loop.model
    model.load_state_dict(loop.best_weights)
    model.eval()
    if isinstance(model, CanonicalModel):
        model.canonicalise(_contexts(loop))
    first = next(_contexts(loop))
    if model.law(first).beta.shape[-1]:
        return None
    return fit_copula(model, loop.windows, loop.train, loop.config.block_size)


def _contexts(loop: TrainingLoop) -> Iterator[Any]:
    """Yield the contexts of training blocks, all of them or evenly spaced ones."""
    blocks = list(loop.windows.blocks(loop.train, loop.config.block_size))
    n_cells = (loop.train.stop - loop.train.start) * len(loop.windows.assets)
    with torch.no_grad():
        for start, stop in blocks[:: max(1, n_cells // _MOST_CELLS)]:
            yield loop.model.context(loop.windows.batch(start, stop))
