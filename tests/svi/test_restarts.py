"""Restarts: the bits of a fit alone, and errors that name the restart."""

from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from nfi_pyro.data.panel import Panel
from nfi_pyro.data.store.lazy import is_lazy
from nfi_pyro.data.store.storage import read_panel, write_panel
from nfi_pyro.errors import PanelError, SpecError
from nfi_pyro.factor_vae import FactorVAE
from nfi_pyro.svi import SVIConfig, SVIFit, fit_restarts, fit_svi


def same_fit(one: SVIFit, two: SVIFit) -> bool:
    xr.testing.assert_identical(one.history, two.history)
    timeless = [
        {key: value for key, value in fit.provenance.items() if key != "wall_seconds"}
        for fit in (one, two)
    ]
    states = [fit.model.state_dict() for fit in (one, two)]
    return (
        timeless[0] == timeless[1]
        and (one.seed, one.config, one.split) == (two.seed, two.config, two.split)
        and states[0].keys() == states[1].keys()
        and all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    )


@pytest.mark.parametrize("stored", [False, True])
def test_each_restart_has_the_bits_of_a_fit_alone(
    stored: bool,
    panel: Panel,
    model: FactorVAE,
    config: SVIConfig,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    given = panel
    if stored:
        given = read_panel(write_panel(panel, tmp_path / "panel.zarr"), lazy=True)
        assert is_lazy(given["features"])
    loud = config.model_copy(update={"progress": stored})
    fits = fit_restarts(model, given, n_restarts=2 - stored, config=loud, seed=5)
    said = capfd.readouterr().err
    assert [fit.seed for fit in fits] == [5, 6][: 2 - stored]
    for fit in fits:
        assert same_fit(fit, fit_svi(model, given, config=loud, seed=fit.seed))
    assert said == ("restart 0 of 1 (seed 5): done\n" if stored else "")
    weights = [fit.model.state_dict()["beta.weight"] for fit in fits]
    assert stored or not torch.equal(*weights)


def test_an_error_of_a_restart_is_raised_as_itself_and_names_it(
    panel: Panel, model: FactorVAE, config: SVIConfig
) -> None:
    lost = panel.copy(deep=True)
    lost["forward_return"].values[:] = np.nan
    with pytest.raises(PanelError, match=r"^restart 0 of 1 \(seed 3\): training returns must"):
        fit_restarts(model, Panel(lost), n_restarts=1, config=config, seed=3)


def test_numbers_out_of_range_are_refused_before_a_process_starts(
    panel: Panel, model: FactorVAE
) -> None:
    with pytest.raises(SpecError, match="restarts must be at least 1; got 0"):
        fit_restarts(model, panel, n_restarts=0)
    with pytest.raises(SpecError, match="jobs must be at least 1; got 0"):
        fit_restarts(model, panel, n_restarts=2, jobs=0)
    with pytest.raises(SpecError, match="seed must be in"):
        fit_restarts(model, panel, n_restarts=2, seed=2**64 - 1)
