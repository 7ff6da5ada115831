"""`nfi fit`: a spec and a panel in, a self-describing run directory out."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from nfi_pyro.catalogue import find_model
from nfi_pyro.commands.exposure_run import ExposureRun
from nfi_pyro.commands.run_directory import FORECAST, POSTERIOR, RunDirectory
from nfi_pyro.commands.settings import FitSettings, read_settings
from nfi_pyro.data.panel import Panel
from nfi_pyro.data.splits import DateSplit
from nfi_pyro.data.store.digests import exposures_hash, panel_hash
from nfi_pyro.data.store.storage import read_panel
from nfi_pyro.errors import NfiError, RunError, SpecError
from nfi_pyro.posterior.arviz_bridge import to_inference_data, write_inference_data
from nfi_pyro.posterior.draws import sample_posterior
from nfi_pyro.posterior.forecasting import forecast as forecast_returns
from nfi_pyro.svi.fit import fit_svi
from nfi_pyro.svi.trained import SVIFit

POSTERIOR_DRAWS = 200


def fit(
    spec: str | Path | FitSettings,
    panel: str | Path,
    out: str | Path,
    *,
    exposures: str | Path | None = None,
    seed: int = 0,
    resume: bool = False,
    threads: int | None = None,
    progress: bool = True,
) -> SVIFit:
    """Return the fit of a spec to a panel, and leave everything about it in the folder `out`.

    Parameters
    ----------
    spec : path, str or FitSettings
        A spec file, a model's name for its defaults, or settings.
    panel : path
        The zarr folder that `panel` wrote.
    out : path
        Run directory: fit, history, posterior and forecasts of every date with a full window.
    exposures : path, optional
        The run of `synthesise` whose scores the model prices, instead of the panel's features.
        `out` keeps a copy, with which `forecast` and `report` score any panel by themselves.
    seed : int
        Of weights, block order and posterior draws.
    resume : bool
        Go on from the checkpoint in `out`, to the same bits as without interruption. A finished
        run is returned as it is.
    threads : int, optional
        Of torch, for this fit alone; torch's own choice by default. The bits of a fit depend on
        it, and a small model is fastest with 1.
    progress : bool
        Show a progress bar.

    Raises
    ------
    SpecError, PanelError, SplitError, RunError, CheckpointError, NonFiniteLossError
        Each names the place and the fix; a checkpoint written before stays readable.
    """
    settings = spec if isinstance(spec, FitSettings) else read_settings(spec)
    given = None if exposures is None else _exposures_for(settings, exposures)
    data = read_panel(panel)
    run = RunDirectory(Path(out))
    run.claim(resume=resume)
    try:
        split = settings.split.resolve(data["date"].values, dict(data["forward_return"].attrs))
        with torch_threads(threads):
            if given is not None:
                given.require_earlier(split)
                data = given.attach(data)
            settings = settings.for_panel(data)
            done = _finished(run, data, settings, split, seed) if resume else None
            if done is not None:
                return done
            trained = fit_svi(
                find_model(settings.model).model_class()(settings.spec),
                data,
                split=split,
                config=settings.svi.model_copy(update={"progress": progress}),
                seed=seed,
                checkpoint=run.checkpoint,
                resume=resume and run.checkpoint.exists(),
            )
    except NfiError:
        run.release()
        raise
    trained = replace(trained, config=settings.svi)
    trained.save(run.path)
    run.write_run(Path(panel))
    if given is not None:
        run.write_exposures(given)
    write_posterior(run, trained, data, seed=seed)
    if trained.status != "interrupted":
        run.checkpoint.unlink(missing_ok=True)
    return trained


def _exposures_for(settings: FitSettings, place: str | Path) -> ExposureRun:
    """Return the exposure run at `place`, if the model takes given exposures."""
    model: Any = find_model(settings.model).model_class()
    if not model.uses_exposures:
        raise SpecError(
            f"--exposures must go with a model of given exposures; got {settings.model}, which "
            "learns its own from the features. Leave --exposures out, or fit linear_factor, "
            "mixture_pricing or neural_factor."
        )
    return ExposureRun.load(place)


@contextmanager
def torch_threads(threads: int | None) -> Iterator[None]:
    """Run a block with a number of torch threads, then go back; None changes nothing.

    Raises
    ------
    SpecError
        If the number is below 1.
    """
    if threads is None:
        yield
        return
    if threads < 1:
        raise SpecError(f"threads must be at least 1; got {threads}. Use the number of cores.")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def write_posterior(run: RunDirectory, trained: SVIFit, data: Panel, *, seed: int) -> None:
    """Write the posterior and the forecasts of every date with a full window into a run."""
    laws = forecast_returns(trained, data)
    laws.data.attrs["panel_hash"] = panel_hash(data)
    laws.save(run.path / FORECAST)
    draws = sample_posterior(trained, data, draws=POSTERIOR_DRAWS, seed=seed)
    container = to_inference_data(trained, draws, laws)
    write_inference_data(container, run.path / POSTERIOR)
    run.record(FORECAST, POSTERIOR)


def _same_exposures(trained: SVIFit, data: Panel) -> bool:
    """Return whether the exposures of a panel are those of a fit."""
    if not trained.model.uses_exposures:
        return True
    attrs = data["exposures"].attrs if "exposures" in data else {}
    run = trained.provenance["exposures"].get("run")
    if run is not None or "run" in attrs:
        return run == attrs.get("run")
    return trained.provenance.get("exposures_hash", "") == exposures_hash(data)


def _finished(
    run: RunDirectory, data: Panel, settings: FitSettings, split: DateSplit, seed: int
) -> SVIFit | None:
    """Return the run if nothing is left to do in it, after checking that it is this very fit."""
    if not run.is_complete or run.checkpoint.exists():
        return None
    trained = run.load_fit()
    same = {
        "panel": trained.provenance["panel_hash"] == panel_hash(data),
        "model": trained.model.name == settings.model,
        "spec": trained.model.spec == settings.spec,
        "config": trained.config.model_dump(exclude={"progress"})
        == settings.svi.model_dump(exclude={"progress"}),
        "split": trained.split == split,
        "seed": trained.seed == seed,
        "exposure run": _same_exposures(trained, data),
    }
    if not all(same.values()):
        other = ", ".join(name for name, equal in same.items() if not equal)
        raise RunError(
            f"a finished run must belong to the fit that resumes; got another {other} for "
            f"{run.path}. Resume with the original settings and panel, or choose another --out."
        )
    # Interrupted without a checkpoint is interrupted in its first epoch: it begins anew.
    return None if trained.status == "interrupted" else trained
