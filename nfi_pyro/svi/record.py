"""What a training run leaves behind: its curves and what it was made with."""

import platform
from typing import Any

import numpy as np
import pyro
import torch
import xarray as xr

import nfi_pyro
from nfi_pyro.data.panel import Panel
from nfi_pyro.svi.config import SVIConfig
from nfi_pyro.svi.inputs import factor_labels
from nfi_pyro.svi.loop import TrainingLoop


def training_history(loop: TrainingLoop, config: SVIConfig) -> xr.Dataset:
    """Return the training curves as a labelled dataset."""
    curves = loop.curves
    n_steps = len(curves["elbo"])
    n_factors = len(curves["kl"][0]) if n_steps else 0
    n_epochs = len(curves["last_step"])
    kl = np.asarray(curves["kl"], dtype=np.float32).reshape(n_steps, n_factors)
    per_cell = {"units": "nats per observed cell, returns in training-sd units"}
    meaning = "evidence lower bound" if config.objective == "elbo" else "objective, not a bound"
    step = {
        "elbo": (per_cell | {"long_name": meaning}),
        "log_likelihood": per_cell,
        "gradient_norm": {"units": "1", "long_name": "before clipping"},
        "learning_rate": {"units": "1"},
    }
    epoch = {
        "validation_log_score": per_cell,
        "validation_rank_ic": {"units": "1"},
        "last_step": {"units": "1"},
    }
    variables: dict[str, Any] = {
        name: ("step", np.asarray(curves[name], dtype=np.float64), attrs)
        for name, attrs in step.items()
    }
    variables |= {
        name: ("epoch", np.asarray(curves[name], dtype=np.float64), attrs)
        for name, attrs in epoch.items()
    }
    variables["kl"] = (("step", "factor"), kl, {"units": "nats per date"})
    if any(curves["heads_kl"]):
        heads = {"units": "nats", "long_name": "KL of the last layers, whole training set"}
        variables["heads_kl"] = ("step", np.asarray(curves["heads_kl"]), heads)
    return xr.Dataset(
        variables,
        coords={
            "step": np.arange(1, n_steps + 1),
            "epoch": np.arange(1, n_epochs + 1),
            "factor": [f"z{k}" for k in range(n_factors)],
        },
        attrs={
            "best_epoch": loop.best_epoch + 1,  # 0 before the first epoch has ended
            "objective": config.objective,
            "n_non_finite": loop.n_non_finite,
            "status": loop.status,
        },
    )


def fit_provenance(loop: TrainingLoop, panel: Panel, seconds: float) -> dict[str, Any]:
    """Return what the run was made with."""
    entered = loop.windows.entered
    return {
        "versions": {
            "nfi_pyro": nfi_pyro.__version__,
            "torch": torch.__version__,
            "pyro": pyro.__version__,
            "python": platform.python_version(),
        },
        "source": str(panel.attrs.get("source", "unknown")),
        "ledger": str(panel.attrs.get("ledger", "[]")),
        "factors": factor_labels(loop.model, panel, _n_factors(loop)),
        "exposures": _lineage(loop, panel),
        "n_dates": int(panel.sizes["date"]),
        "n_assets": int(panel.sizes["asset"]),
        "first_date": str(panel["date"].values[0])[:10],
        "last_date": str(panel["date"].values[-1])[:10],
        "n_tradable_cells": int(panel["tradable"].values.sum()),
        "n_entered_cells": int(entered.sum()),
        "n_parameters": sum(p.numel() for p in loop.model.parameters()),
        "device": str(loop.windows.device),
        "threads": torch.get_num_threads(),
        "wall_seconds": round(seconds, 3),
        "n_skipped_steps": loop.n_non_finite,
        "skipped_dates": list(loop.bad_dates),
    }


def _n_factors(loop: TrainingLoop) -> int:
    """Return how many factors the law of the model has."""
    start = loop.train.start
    with torch.no_grad():
        return loop.model.law(loop.model.context(loop.windows.batch(start, start + 1))).beta.shape[
            -1
        ]


def _lineage(loop: TrainingLoop, panel: Panel) -> dict[str, Any]:
    """Return where given exposures came from; nothing for a model that learns its own."""
    if not loop.model.uses_exposures:
        return {}
    if loop.windows.exposures is None:
        return {"source": "features", "names": [str(name) for name in panel["feature"].values]}
    given = panel["exposures"]
    attrs = {key: value for key, value in given.attrs.items() if isinstance(value, str | list)}
    return {"source": "panel", "names": [str(name) for name in given["factor"].values]} | attrs
