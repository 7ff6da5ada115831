"""What tests of explained networks share: a panel with holes, and bent fits on it."""

from functools import cache
from typing import Any

import pytest

from nfi_pyro.data.panel import Panel
from tests.attribution.explained_maker import fit_bent, make_holed_panel


@pytest.fixture(scope="session")
def panel() -> Panel:
    return make_holed_panel()


@pytest.fixture(scope="session")
def fits(panel: Panel) -> Any:
    """Return a maker of fits by model and seed, each made once; a test must not change them."""
    return cache(lambda name, seed=3: fit_bent(name, panel, seed))
