"""`nfi compare`: runs of one panel and label in, one ranking on the same cells out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from nfi_pyro.commands.evaluation import (
    EWMA,
    KNOWN_IN_TRAINING,
    UNCONDITIONAL,
    CellScores,
    evaluation_span,
    score_baselines,
    score_cells,
)
from nfi_pyro.commands.predicting import open_panel
from nfi_pyro.commands.run_directory import RunDirectory
from nfi_pyro.data.panel import Panel
from nfi_pyro.data.splits import DateSpan
from nfi_pyro.data.store.digests import panel_hash
from nfi_pyro.diagnostics.calibration import calibrate
from nfi_pyro.diagnostics.results import ScoreTable
from nfi_pyro.diagnostics.scores import (
    compare_forecasts,
    information_coefficient,
    paired_differences,
)
from nfi_pyro.dims import ASSET, DATE
from nfi_pyro.errors import RunError, SpecError, SplitError, name_places
from nfi_pyro.posterior.blocks import require_label
from nfi_pyro.svi.checkpoint import make_folder, write_atomically
from nfi_pyro.svi.trained import SVIFit

LEVELS = (0.5, 0.8, 0.95)
BASELINES = {UNCONDITIONAL: "unconditional", EWMA: "ewma"}
_MEASURES = {"log_score": "difference_standard_error", "crps": "crps_difference_standard_error"}


@dataclass(frozen=True)
class Comparison:
    """Runs and baselines on the same cells, best first.

    Attributes
    ----------
    table : DataFrame
        One row per run and baseline by log score, index `forecast` (folder of the run). Columns
        `rank` (of runs; missing for baselines), `model`, `seed`; `log_score` (nats per cell,
        returns in units of `unit`; higher is better) and `crps` (the label's unit; lower is
        better), each also as ``_minus_best``, ``_minus_unconditional`` and ``_minus_ewma``, this
        forecast minus the other, with ``_standard_error`` (Newey-West over dates, paired by
        cell); `rank_ic`, `rank_ic_lower`, `rank_ic_upper` (95 percent, HAC), `coverage_50`,
        `coverage_80`, `coverage_95` (shares) and `fit_seconds`, NaN for baselines.
    span_name : {"test", "validation"}
    span : DateSpan
        Dates that all runs' spans of that name share.
    n_dates, n_cells : int
        Dates and cells that count: those that every run and baseline scored.
    unit : float
        Training standard deviation of the first run, in the label's unit.
    unit_of : str
        Name of the first run.
    label_unit : str
        Unit of the label, ``return`` for decimal returns.
    notes : tuple of str
        What a reader must know of the runs.
    """

    table: pd.DataFrame
    span_name: str
    span: DateSpan
    n_dates: int
    n_cells: int
    unit: float
    unit_of: str
    label_unit: str
    notes: tuple[str, ...]


def compare(
    runs: Sequence[str | Path],
    *,
    span: str | None = None,
    panel: str | Path | None = None,
    out: str | Path | None = None,
) -> Comparison:
    """Return the runs ranked by log score on the cells that all of them and two baselines scored.

    Parameters
    ----------
    runs : sequence of path
        Two run directories or more, of one panel and label. The first one's training standard
        deviation is the unit of all log scores (scores of a run with another are converted by
        the logarithm of the ratio), and its training dates make the unconditional Gaussian.
    span : {"test", "validation"}, optional
        Default: the test span where every run has one. The dates that all runs' spans of that
        name share count. The test span should be opened once, after every choice.
    panel : path, optional
        Where the panel is now. Default: where the first run's was.
    out : path, optional
        CSV of the whole table.

    Raises
    ------
    SpecError
        If there are fewer than two runs, one is named twice, the spans share no date or reach
        into the training dates of a run, or no cell was scored by all.
    RunError
        If a run is of another label or its forecasts are of another panel; names the run.
    CheckpointError, PanelError
        If a file of a run or the panel cannot be read.
    """
    folders = _name_runs(runs)
    fits = {name: folder.load_fit() for name, folder in folders.items()}
    _require_one_label(fits)
    span_name, dates = shared_span(fits, span)
    first = next(iter(fits))
    data = open_panel(folders[first], panel)
    require_label(fits[first], data)
    unit = fits[first].return_scale
    cells = _score_runs(folders, data, dates, unit)
    table, scores = _rank(fits, cells, data, unit)
    found = Comparison(
        table=table,
        span_name=span_name,
        span=dates,
        n_dates=int(scores.scored.any(ASSET).sum()),
        n_cells=scores.n_observations,
        unit=unit,
        unit_of=first,
        label_unit=str(fits[first].label["unit"]),
        notes=_notes(fits, span_name, panel_hash(data)),
    )
    if out is not None:
        place = Path(out)
        make_folder(place.parent)
        write_atomically(place, table.to_csv)
    return found


def shared_span(fits: Mapping[str, SVIFit], span: str | None) -> tuple[str, DateSpan]:
    """Return the name and the shared dates of the runs' spans, outside all training dates.

    Raises
    ------
    SpecError
        Names the runs in the way.
    """
    everywhere = all(fit.split.test is not None for fit in fits.values())
    name = span or ("test" if everywhere else "validation")
    spans = {run: evaluation_span(fit, name, run)[1] for run, fit in fits.items()}
    late = max(spans, key=lambda run: pd.Timestamp(spans[run].first))
    early = min(spans, key=lambda run: pd.Timestamp(spans[run].last))
    found = DateSpan(spans[late].first, spans[early].last)
    if pd.Timestamp(found.first) > pd.Timestamp(found.last):
        raise SpecError(
            f"runs to compare must share {name} dates; got {early} until {found.last} and {late} "
            f"from {found.first}. Leave one of them out, or fit with one split."
        )
    for run, fit in fits.items():
        train = fit.split.train
        if not (
            pd.Timestamp(train.last) < pd.Timestamp(found.first)
            or pd.Timestamp(train.first) > pd.Timestamp(found.last)
        ):
            raise SpecError(
                f"dates to compare on must lie outside every run's training dates; got {name} "
                f"{found.first} to {found.last} and training {train.first} to {train.last} of "
                f"{run}. Leave it out, or fit with one split."
            )
    return name, found


def _name_runs(runs: Sequence[str | Path]) -> dict[str, RunDirectory]:
    """Return the run directories by the last parts of their paths, as few as tell them apart."""
    if isinstance(runs, str | Path) or len(runs) < 2:
        raise SpecError(
            f"a comparison must have at least two runs; got {runs!r}. Name two run directories, "
            "or use `nfi report` for one."
        )
    places = [Path(run).resolve() for run in runs]
    twice = sorted({str(place) for place in places if places.count(place) > 1})
    if twice:
        raise SpecError(
            f"runs to compare must differ; got {name_places(twice)} twice. Name each once."
        )
    names: list[str] = []
    for depth in range(1, max(len(place.parts) for place in places) + 1):
        names = ["/".join(place.parts[-depth:]) for place in places]
        if len({*names, *BASELINES}) == len(names) + len(BASELINES):
            break
    return {name: RunDirectory(Path(run)) for name, run in zip(names, runs, strict=True)}


def _require_one_label(fits: Mapping[str, SVIFit]) -> None:
    """Refuse a run whose label is not the first run's."""
    first, *others = fits
    wanted = fits[first].label
    for run in others:
        found = fits[run].label
        keys = [key for key in {**wanted, **found} if found.get(key) != wanted.get(key)]
        if keys:
            own, their = ({key: label.get(key) for key in keys} for label in (found, wanted))
            raise RunError(
                f"runs to compare must have one label; got {own} at {run} against {their} at "
                f"{first}. Compare runs of one label."
            )


def _score_runs(
    folders: Mapping[str, RunDirectory], data: Panel, span: DateSpan, unit: float
) -> dict[str, CellScores]:
    """Return the scores of each run's cells, on the dates that all of them forecast."""
    digest = panel_hash(data)
    cells: dict[str, CellScores] = {}
    for run, folder in folders.items():
        laws = folder.load_forecast()
        if laws.data.attrs["panel_hash"] != digest:
            raise RunError(
                f"runs to compare must be forecasts of one panel; got another panel at {run}. "
                f"Run `nfi forecast {folder.path} --panel PANEL` first, or leave it out."
            )
        try:
            cells[run] = score_cells(laws, data, span, unit=unit)
        except SplitError as error:
            raise RunError(
                f"the forecasts of {run} must include dates of {span.first} to {span.last}; got "
                f"none. Run `nfi forecast {folder.path}` first, or leave it out."
            ) from error
    shared = set.intersection(*(set(own.mean[DATE].values.tolist()) for own in cells.values()))
    if not shared:
        raise RunError(
            f"runs to compare must forecast the same dates; got none in {span.first} to "
            f"{span.last} that all of {name_places(cells)} forecast. Leave one of them out."
        )
    return {
        run: CellScores(
            **{
                name: value.isel({DATE: np.isin(value[DATE].values.tolist(), list(shared))})
                for name, value in vars(own).items()
            }
        )
        for run, own in cells.items()
    }


def _rank(
    fits: Mapping[str, SVIFit], cells: Mapping[str, CellScores], data: Panel, unit: float
) -> tuple[pd.DataFrame, ScoreTable]:
    """Return the table of `Comparison`, and the scores behind it."""
    first = next(iter(fits))
    horizon = int(fits[first].label["horizon"])
    log_scores = {run: own.log_score for run, own in cells.items()}
    crps = {run: own.crps for run, own in cells.items()}
    returns = cells[first].forward_return
    baselines = score_baselines(data, returns, fits[first].split.train, unit=unit)
    for name, (log_score, error) in baselines.items():
        log_scores[name], crps[name] = log_score, error
    scores = compare_forecasts(log_scores, crps, horizon=horizon)
    table = scores.table[["log_score", "crps"]].to_dataframe()
    means = dict(zip(log_scores, scores.table["log_score"].values.tolist(), strict=True))
    ranking = sorted(fits, key=means.__getitem__, reverse=True)
    for name, reference in {"best": ranking[0], **{v: k for k, v in BASELINES.items()}}.items():
        found = paired_differences(scores, reference, horizon=horizon)
        for measure, error_name in _MEASURES.items():
            column = f"{measure}_minus_{name}"
            table[column] = found[f"{measure}_difference"].to_series()
            table[f"{column}_standard_error"] = found[error_name].to_series()
    beside = {
        run: _beside(fits[run], own, scores.scored, horizon) | {"rank": 1 + ranking.index(run)}
        for run, own in cells.items()
    }
    table = table.join(pd.DataFrame.from_dict(beside, orient="index"))
    table = table.astype({"rank": "Int64", "seed": "Int64"})  # baselines have neither
    leading = ["rank", "model", "seed"]
    table = table[leading + [name for name in table if name not in leading]]
    return table.sort_values("log_score", ascending=False, kind="stable"), scores


def _beside(
    fit: SVIFit, cells: CellScores, scored: xr.DataArray, horizon: int
) -> dict[str, str | float]:
    """Return what stands beside a run's scores, on the cells that all scored."""
    ranks = information_coefficient(
        cells.mean.where(scored), cells.forward_return.where(scored), horizon=horizon
    )
    coverage = calibrate(cells.pit.where(scored), levels=LEVELS).coverage["observed"]
    return {
        "model": str(fit.provenance["model"]),
        "seed": fit.seed,
        "rank_ic": ranks.mean,
        "rank_ic_lower": ranks.interval[0],
        "rank_ic_upper": ranks.interval[1],
        **{
            f"coverage_{100 * level:.0f}": float(share)
            for level, share in zip(LEVELS, coverage.values, strict=True)
        },
        "fit_seconds": float(fit.provenance["wall_seconds"]),
    }


def _notes(fits: Mapping[str, SVIFit], span_name: str, digest: str) -> tuple[str, ...]:
    """Return what a reader must know of the runs."""
    first = next(iter(fits))
    notes = [f"These dates were {KNOWN_IN_TRAINING[span_name]}."]
    if span_name == "test":
        notes.append(
            "Open the test span once, after every choice: whoever chooses by it has none any more."
        )
    other = [run for run, fit in fits.items() if fit.split != fits[first].split]
    if other:
        notes.append(
            f"Fitted with another split than {first}: {name_places(other)}. The unconditional "
            f"Gaussian is of the training dates of {first}."
        )
    foreign = [run for run, fit in fits.items() if fit.provenance["panel_hash"] != digest]
    if foreign:
        notes.append(f"Fitted on another panel than this one: {name_places(foreign)}.")
    return tuple(notes)
