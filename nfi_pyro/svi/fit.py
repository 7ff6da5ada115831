"""Fit a variational model to a panel: scales from training dates, loop, best state, provenance."""

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from nfi_pyro.data.panel import Panel, PanelBlocks, check_panel
from nfi_pyro.data.splits import DateSplit, split_dates
from nfi_pyro.data.store.digests import exposures_hash, panel_hash
from nfi_pyro.data.training.transform_chain import TransformChain
from nfi_pyro.data.training.windows import PanelWindows
from nfi_pyro.errors import CheckpointError, PanelError, SpecError
from nfi_pyro.svi.checkpoint import load_state, make_folder, save_state
from nfi_pyro.svi.config import SVIConfig, check_seed
from nfi_pyro.svi.finish import finish
from nfi_pyro.svi.inputs import (
    check_exposures,
    check_known,
    check_sizes,
    given_names,
    warn_of_percent,
)
from nfi_pyro.svi.loop import TrainingLoop
from nfi_pyro.svi.record import fit_provenance, training_history
from nfi_pyro.svi.trained import SVIFit


def fit_svi(
    model: Any,
    panel: Panel,
    *,
    split: DateSplit | None = None,
    config: SVIConfig | None = None,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    resume: bool = False,
) -> SVIFit:
    """Return a model of the same class and spec, trained on the panel's training dates.

    `model` is a recipe: it is not changed, and the fit starts from new weights drawn by `seed`.
    Feature medians and scales, and the return scale, come from the training dates alone.
    Training stops after `config.n_epochs`, when the validation log score has not improved for
    `config.patience` epochs, or on Ctrl-C; the best state is returned in each case. Global
    random generators are left as they were.

    Parameters
    ----------
    model : PricingModel
        For example ``FactorVAE(FactorVAESpec(n_features=20))``.
    panel : Panel
        From `check_panel` or `build_panel`; raw features.
    split : DateSplit, optional
        From `split_dates`. By default 70/15/15 percent of the dates, purged.
    config : SVIConfig, optional
    seed : int
        Of initial weights and block order. Same seed, same bits on one device and thread count.
    checkpoint : path, optional
        File that is rewritten after every epoch.
    resume : bool
        Continue from `checkpoint`, to the same bits as without interruption.

    Returns
    -------
    SVIFit

    Raises
    ------
    PanelError, SplitError
        If the panel cannot be trained on: other features than the spec, no observed return.
    SpecError
        If the seed is out of range or the device is not there.
    NonFiniteLossError
        After ``config.max_non_finite`` skipped steps; names steps and dates.
    CheckpointError
        If the checkpoint cannot be written, is truncated or altered, or is of another fit.
    """
    began = time.perf_counter()
    config = config or SVIConfig()
    check_seed(seed)
    panel = check_panel(panel)
    stored = panel["forward_return"].attrs
    label = {key: _plain(stored[key]) for key in _LABEL_KEYS if key in stored}
    split = split or split_dates(
        panel["date"].values, start_lag=label["start_lag"], horizon=label["horizon"]
    )
    check_sizes(model, panel)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        loop, transforms = _prepare(model, panel, split, config, seed)
        identity = _identity(model, panel, split, config, seed)
        place = None if checkpoint is None else Path(checkpoint)
        if resume:
            _restore(loop, place, identity)
        _train(loop, place, identity)
    copula = finish(loop)
    history = training_history(loop, config)
    provenance = identity | fit_provenance(loop, panel, time.perf_counter() - began)
    return SVIFit(
        model=loop.model.cpu().eval(),
        config=config,
        seed=seed,
        split=split,
        transforms=transforms,
        return_scale=loop.windows.return_scale,
        label=label,
        history=history,
        provenance=provenance,
        status=loop.status,
        copula=copula,
    )


_LABEL_KEYS = ("start_lag", "horizon", "unit", "kind", "price", "benchmark")


def _plain(value: object) -> Any:
    """Return a numpy scalar as its Python value."""
    return value.item() if isinstance(value, np.generic) else value


def _prepare(
    model: Any, panel: Panel, split: DateSplit, config: SVIConfig, seed: int
) -> tuple[TrainingLoop, TransformChain]:
    """Return a loop over standardised windows, and the transforms of the features."""
    dates = panel["date"].values
    train, validation = split.train.positions(dates), split.validation.positions(dates)
    if model.uses_exposures:
        check_known(panel, train)
    names = tuple(str(name) for name in panel["feature"].values)
    transforms = TransformChain.fit(config.transforms, PanelBlocks(panel, train), names)
    tradable = panel["tradable"].values[train]
    returns = panel["forward_return"].values[train][tradable].astype(np.float64)
    known = returns[np.isfinite(returns)]
    return_scale = float(known.std()) if known.size else 0.0
    if not return_scale > 0.0:
        raise PanelError(
            f"training returns must be observed and vary; got {known.size} observed with standard "
            f"deviation {return_scale} in {split.train.first} to {split.train.last}. Choose "
            "other training dates, or check the label."
        )
    warn_of_percent(return_scale, dict(panel["forward_return"].attrs))
    windows = PanelWindows(
        panel,
        lags=model.spec.lags,
        transforms=transforms,
        return_scale=return_scale,
        device=_device(config.device),
        use_exposures=model.uses_exposures,
    )
    train = slice(max(train.start, windows.first), train.stop)
    for name, span in (("train", train), ("validation", validation)):
        if span.stop <= max(span.start, windows.first) or not bool(windows.observed[span].any()):
            raise PanelError(
                f"{name} must have a date with full windows of {windows.lags} lags and an observed "
                f"return; got none in {span.stop - span.start} dates. Use a longer span, more "
                "history before it, or a smaller spec.lags."
            )
    if model.uses_exposures:
        check_exposures(windows, train, given_names(model, panel))
    fresh = type(model)(model.spec, seed=seed).to(windows.device)
    return TrainingLoop(fresh, windows, train, validation, config, seed), transforms


def _device(name: str) -> torch.device:
    """Return the device that `name` means on this machine."""
    cuda = torch.cuda.device_count()
    if name == "auto":
        return torch.device("cuda" if cuda else "cpu")
    known = ["cpu", "cuda", *(f"cuda:{k}" for k in range(cuda))] if cuda else ["cpu"]
    if name not in known:
        raise SpecError(
            f"device must be auto or one of this machine's ({', '.join(known)}); got {name!r}. "
            "Use auto."
        )
    return torch.device(name)


def _train(loop: TrainingLoop, place: Path | None, identity: dict[str, Any]) -> None:
    """Run epochs until done; on Ctrl-C keep the best state reached."""
    total = loop.config.n_epochs * loop.steps_per_epoch
    live = loop.config.progress and (sys.stderr.isatty() or "ipykernel" in sys.modules)
    with tqdm(total=total, initial=loop.step, disable=not live, unit="step") as bar:
        try:
            while not loop.finished:
                loop.run_epoch(bar)
                if loop.config.progress and not live:  # a file: a bar would be one endless line
                    print(loop.describe_epoch(), file=sys.stderr, flush=True)
                if place is not None:
                    make_folder(place.parent)
                    save_state(place, {"identity": identity, "loop": loop.state()})
        except KeyboardInterrupt:
            loop.status = "interrupted"
            if loop.best_epoch < 0:
                loop.best_weights = {k: v.cpu().clone() for k, v in loop.model.state_dict().items()}
            return
    loop.status = "finished" if loop.epoch >= loop.config.n_epochs else "early stopped"


def _identity(
    model: Any, panel: Panel, split: DateSplit, config: SVIConfig, seed: int
) -> dict[str, Any]:
    """Return what two fits must share to be the same fit."""
    training = config.model_dump(mode="json", exclude={"progress"})
    given = {"exposures_hash": exposures_hash(panel)} if model.uses_exposures else {}
    return given | {
        "model": model.name,
        "spec": model.spec.model_dump(),
        "config": training,
        "seed": seed,
        "split": split.as_dict(),
        "panel_hash": panel_hash(panel),
    }


def _restore(loop: TrainingLoop, place: Path | None, identity: dict[str, Any]) -> None:
    """Load a checkpoint into the loop if it belongs to this very fit."""
    if place is None:
        raise CheckpointError(
            "resume must know a checkpoint; got none. Pass checkpoint= as in the first fit."
        )
    stored = load_state(place)
    found = stored.get("identity", {})
    differing = [key for key in identity if found.get(key) != identity[key]]
    if differing:
        raise CheckpointError(
            f"a checkpoint must belong to the fit that resumes; got another {', '.join(differing)} "
            f"at {place}. Resume with the original settings and panel, or fit anew."
        )
    loop.restore(stored["loop"])
