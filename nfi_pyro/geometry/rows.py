"""Leading axes in and out, and the warnings about rows that are not to be trusted."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from nfi_pyro.errors import ShapeError, name_places


def flatten(*parts: Tensor) -> tuple[list[Tensor], torch.Size]:
    """Return the parts (..., factor) broadcast and as rows (row, factor), and their leading shape.

    Raises
    ------
    ShapeError
        If leading axes do not broadcast.
    """
    try:
        wide = torch.broadcast_tensors(*parts)
    except RuntimeError as error:
        shapes = " and ".join(str(tuple(part.shape)) for part in parts)
        raise ShapeError(
            f"leading axes must broadcast; got shapes {shapes}. Give pairs as (row, 1, factor) "
            "and (1, column, factor), or row by row."
        ) from error
    return [part.reshape(-1, part.shape[-1]) for part in wide], wide[0].shape[:-1]


def restore(rows: Tensor, shape: torch.Size) -> Tensor:
    """Return rows (row, ...) with their leading axes again."""
    return rows.reshape((*shape, *rows.shape[1:]))


@contextmanager
def graph_for(*parts: Tensor) -> Iterator[None]:
    """Build a graph only where an input asks for one; a network's parameters never do."""
    wanted = torch.is_grad_enabled() and any(part.requires_grad for part in parts)
    with torch.set_grad_enabled(wanted):
        yield


def warn(wrong: Tensor, what: str) -> None:
    """Warn of the rows in `wrong` (row,), if there are any."""
    if bool(wrong.any()):
        rows = wrong.nonzero().flatten().tolist()
        warnings.warn(f"{what} at row {name_places(rows)}", UserWarning, stacklevel=4)
