"""What every benchmark shares; threads are set for all tests in the conftest above."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def own_generator() -> Iterator[None]:
    """Leave the global generator as it was."""
    with torch.random.fork_rng(devices=[]):
        yield
