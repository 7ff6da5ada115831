"""`nfi synthesise`: a panel in, a few exposures per asset out, learnt on training dates alone."""

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import torch
import xarray as xr

import nfi_pyro
from nfi_pyro.commands.exposure_run import ExposureRun
from nfi_pyro.commands.run_directory import RunDirectory
from nfi_pyro.commands.synthesis_settings import SynthesisSettings, synthesis_settings
from nfi_pyro.data.panel import Panel, PanelBlocks
from nfi_pyro.data.splits import DateSplit
from nfi_pyro.data.store.digests import panel_hash
from nfi_pyro.data.store.storage import read_panel
from nfi_pyro.data.training.transform_chain import TransformChain
from nfi_pyro.data.training.transformed import complete_rows, transformed_features
from nfi_pyro.dims import FACTOR, FEATURE
from nfi_pyro.errors import NfiError, SpecError
from nfi_pyro.exposures.evidence import choose_ppca, choose_vae
from nfi_pyro.exposures.pca import PCAFit, fit_pca
from nfi_pyro.exposures.ppca import gather_moments, refuse_unusable
from nfi_pyro.exposures.ppca_result import PPCAFit
from nfi_pyro.exposures.rows import principal_axes, span_positions
from nfi_pyro.exposures.scoring import ExposureFit, factors_in_use
from nfi_pyro.exposures.vae_result import VAEFit
from nfi_pyro.svi.config import check_seed

CANDIDATES = {
    "ppca": (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128),
    "vae": (1, 2, 4, 8, 16),
}
"""Numbers of factors that ``auto`` compares, as far as the rows have directions for them."""


def synthesise(
    method: str,
    panel: str | Path,
    out: str | Path,
    *,
    factors: int | str | None = None,
    mode: str | None = None,
    seed: int = 0,
    spec: str | Path | None = None,
) -> ExposureRun:
    """Return a model that turns many features into a few exposures, and leave it in `out`.

    Transforms and model are fitted on the tradable rows of the training span; validation dates
    choose the number of factors (``auto``) and stop an autoencoder. Returns are not read.

    Parameters
    ----------
    method : {"pca", "ppca", "vae"}
    panel : path
        The zarr folder that `panel` wrote.
    out : path
        Directory of the exposure run: model, transforms, split and lineage, digests of each.
        Scores are computed anew for any panel: ``ExposureRun.load(out).score(panel)``.
    factors : int or "auto", optional
        Default: the smallest number whose validation evidence is within one standard error of
        the best. pca has no evidence and needs a number.
    mode : {"pooled", "expanding", "per_date"}, optional
        Of pca; see `fit_pca`.
    seed : int
        Of the autoencoder's weights, batches and draws; pca and ppca draw nothing.
    spec : path, optional
        TOML of all options, or a file of `nfi fit` for its split; see `synthesis_settings`.

    Raises
    ------
    SpecError, PanelError, SplitError, RunError, CheckpointError, NonFiniteLossError
        Each names the place and the fix; nothing is left in `out`.
    """
    settings = synthesis_settings(method, spec=spec, factors=factors, mode=mode)
    check_seed(seed)
    data = read_panel(panel)
    run = RunDirectory(Path(out))
    run.claim(resume=False, resumable=False)
    try:
        found = synthesise_panel(data, settings, seed=seed)
    except NfiError:
        run.release()
        raise
    found.save(run.path)
    return found


def synthesise_panel(data: Panel, settings: SynthesisSettings, *, seed: int) -> ExposureRun:
    """Return the exposure run of a panel in memory or on disk; nothing is written."""
    split = settings.split.resolve(data["date"].values, dict(data["forward_return"].attrs))
    names = tuple(str(name) for name in data[FEATURE].to_numpy())
    train = split.train.positions(data["date"].values)
    transforms = TransformChain.fit(settings.transforms, PanelBlocks(data, train), names)
    features = transformed_features(data, transforms)
    complete = complete_rows(features)
    rows = _Rows(features, data["tradable"] & complete, split)
    fit, evidence = _fit(rows, settings, seed)
    lineage = {
        "options": settings.options(),
        "factors": factors_in_use(fit),
        "features": list(names),
        "panel_hash": panel_hash(data),
        "panel_source": str(data.attrs.get("source", "unknown")),
        "validation_used": isinstance(fit, VAEFit) or settings.factors is None,
        "n_incomplete": int((data["tradable"] & ~complete)[train].sum()),
        "evidence": evidence,
        "versions": {
            "nfi_pyro": nfi_pyro.__version__,
            "numpy": np.__version__,
            "torch": torch.__version__,
            "pyro": pyro.__version__,
            "python": platform.python_version(),
        },
    }
    run = ExposureRun(settings.method, fit, transforms, split, seed, lineage)
    counts = run.score(data).attrs  # it also proves that the model scores its own panel
    scored = {key: int(counts[key]) for key in ("n_tradable", "n_without_score")}
    return ExposureRun(settings.method, fit, transforms, split, seed, lineage | scored)


@dataclass(frozen=True)
class _Rows:
    """Transformed features, the cells that count, and the spans."""

    features: xr.DataArray
    mask: xr.DataArray
    split: DateSplit


def _fit(
    rows: _Rows, settings: SynthesisSettings, seed: int
) -> tuple[ExposureFit, dict[str, list[Any]]]:
    """Return the fit on training dates, and the evidence of each number of factors tried."""
    train, validation = rows.split.train, rows.split.validation
    if settings.method == "pca":
        if settings.factors is None:
            raise SpecError("pca must have a number of factors; got none. Give factors.")
        fit = fit_pca(
            rows.features, rows.mask, n_factors=settings.factors, mode=settings.mode, train=train
        )
        return fit, {}
    counts = [settings.factors] if settings.factors else _candidates(rows, settings)
    choice: Any
    if settings.method == "ppca":
        choice = choose_ppca(
            rows.features, rows.mask, n_factors=counts, train=train, validation=validation
        )
    else:
        choice = choose_vae(
            rows.features,
            rows.mask,
            n_factors=counts,
            spec=settings.vae,
            train=train,
            validation=validation,
            training=settings.training,
            seed=seed,
        )
    columns = {str(name): choice.table[name].values.tolist() for name in choice.table}
    return choice.best, {"n_factors": counts, **columns}


def _candidates(rows: _Rows, settings: SynthesisSettings) -> list[int]:
    """Return the numbers of factors to compare, below the rank of the training rows."""
    positions = span_positions(rows.features, rows.split.train)
    moments, _ = gather_moments(rows.features, rows.mask, positions, n_factors=1, complete=True)
    refuse_unusable(moments, rows.features[FEATURE].to_numpy(), 1)
    rank = principal_axes(moments.scatter / moments.n)[2]
    return [count for count in CANDIDATES[settings.method] if count < rank] or [1]


def describe_synthesis(run: ExposureRun) -> str:
    """Return what was fitted, how much it explains and what was dropped, as lines."""
    told = run.lineage
    train, validation = run.split.train, run.split.validation
    lines = [
        f"exposures {len(told['factors'])} of {run.name} from {len(told['features'])} features: "
        f"{', '.join(told['factors'])}",
        f"training  {train.first} to {train.last}, {_n_rows(run.fit):,} rows; "
        f"{told['n_incomplete']:,} tradable rows left out: a feature is missing",
        *_explained(run.fit),
    ]
    if told["evidence"]:
        lines += _evidence(told["evidence"], run)
        lines.append(f"          on {validation.first} to {validation.last}")
    lines += _dropped(run.fit)
    missing, tradable = told["n_without_score"], told["n_tradable"]
    lines.append(
        f"scores    {tradable - missing:,} of {tradable:,} tradable asset-dates; {missing:,} have "
        "none and will not enter a fit"
    )
    return "\n".join(lines)


def _n_rows(fit: ExposureFit) -> int:
    """Return the number of rows behind a fit; an expanding one has them all on its last date."""
    if not isinstance(fit, PCAFit):
        return fit.n_rows
    if fit.mode == "expanding":
        return int(fit.n_rows[-1])
    return int(fit.n_rows.sum())


def _explained(fit: ExposureFit) -> list[str]:
    """Return the shares of variance that the factors explain in training."""
    if isinstance(fit, VAEFit):
        variance = ", ".join(f"{value:.2f}" for value in fit.posterior_variance)
        return [
            f"explained {int(fit.active_units.sum())} of {fit.spec.n_factors} latents active; "
            f"variance of their means {variance} (the prior's is 1)"
        ]
    if isinstance(fit, PPCAFit):
        own = (fit.loadings.to_numpy() ** 2).sum(axis=0)
        total = own.sum() + fit.noise_variance * len(fit.loadings)
        shares, what = (own + fit.noise_variance) / total, "of variance"
    else:
        ratio = fit.explained_variance_ratio
        dated = fit.mode != "pooled"
        shares = (ratio.mean("date") if dated else ratio).to_numpy()
        what = "of variance" + (", mean over dates" if dated else "")
    each = ", ".join(f"{share:.1%}" for share in shares)
    lines = [f"explained {shares.sum():.1%} {what}: {each}"]
    if isinstance(fit, PPCAFit):
        lines.append(
            f"          noise variance {fit.noise_variance:.4g}, log-likelihood "
            f"{fit.log_likelihood / fit.n_rows:.4f} nats per training row"
        )
    return lines


def _evidence(table: dict[str, list[Any]], run: ExposureRun) -> list[str]:
    """Return the validation evidence of each number of factors, the chosen one marked."""
    chosen = run.fit.loadings.sizes[FACTOR] if not isinstance(run.fit, VAEFit) else None
    if isinstance(run.fit, VAEFit):
        chosen = run.fit.spec.n_factors
    counts = table["n_factors"]
    head = "evidence  nats per validation row, and standard error of the gap to the best:"
    lines = [head if len(counts) > 1 else "evidence  nats per validation row:"]
    for place, count in enumerate(counts):
        error = f" ({table['validation_error'][place]:.4f})" if len(counts) > 1 else ""
        active = f", {table['active'][place]} active" if "active" in table else ""
        mark = " <- chosen" if count == chosen and len(counts) > 1 else ""
        lines.append(
            f"          {count:>3} factors {table['validation'][place]:+.4f}{error}{active}{mark}"
        )
    if len(counts) > 1 and chosen == counts[-1]:
        lines.append("          the largest number compared was chosen: more may be better still")
    return lines


def _dropped(fit: ExposureFit) -> list[str]:
    """Return what the fit left out or found degenerate."""
    lines = []
    for what in ("constant", "collinear"):
        names = getattr(fit, f"{what}_features", ())
        if names:
            lines.append(f"{what:<9} {len(names)} features, kept: {', '.join(names)}")
    if isinstance(fit, PCAFit) and fit.short_dates:
        days = f"{fit.short_dates[0]} to {fit.short_dates[-1]}"
        lines.append(f"short     {len(fit.short_dates)} training dates without axes, {days}")
    if isinstance(fit, VAEFit) and not fit.active_units.all():
        gone = sorted(set(fit.factors) - set(factors_in_use(fit)))
        lines.append(f"dropped   collapsed latents: {', '.join(gone)}")
    return lines
