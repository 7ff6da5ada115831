"""`nfi forecast`: a run in, next-return distributions of every asset out."""

from pathlib import Path

import pandas as pd

from nfi_pyro.commands.run_directory import FORECAST, RESTARTS, RunDirectory
from nfi_pyro.data.panel import Panel
from nfi_pyro.data.store.digests import panel_hash
from nfi_pyro.data.store.storage import read_panel
from nfi_pyro.errors import NfiError, RunError, name_places
from nfi_pyro.posterior.blocks import require_label
from nfi_pyro.posterior.ensemble import ForecastEnsemble
from nfi_pyro.posterior.forecasting import forecast as forecast_returns
from nfi_pyro.posterior.return_forecast import ReturnForecast
from nfi_pyro.svi.checkpoint import make_folder, write_atomically

TABLE_QUANTILES = (0.01, 0.05, 0.5, 0.95, 0.99)


def forecast(
    run: str | Path, *, panel: str | Path | None = None, out: str | Path | None = None
) -> ReturnForecast:
    """Return the forecasts of a run for every date of a panel, and keep them in the run.

    Of a run with restarts these are the first restart's; `forecast_restarts`, which this calls,
    returns all of them.

    Parameters
    ----------
    run : path
        Run directory.
    panel : path, optional
        A panel with the run's features, for example with newer dates. Default: the run's own.
    out : path, optional
        CSV table of the last date, see `last_date_table`.

    Raises
    ------
    RunError, CheckpointError, PanelError
        Each names the place and the fix.
    """
    return forecast_restarts(run, panel=panel, out=out).members[0]


def forecast_restarts(
    run: str | Path, *, panel: str | Path | None = None, out: str | Path | None = None
) -> ForecastEnsemble:
    """Return the forecasts of all restarts of a run, and keep each in its own run directory.

    A fit alone is an ensemble of one. Parameters and errors are those of `forecast`.

    Raises
    ------
    RunError
        Also if a restart is not finished.
    """
    folder = RunDirectory(Path(run))
    members = folder.restarts
    unfinished = [member.path for member in members[1:] if not member.is_finished]
    if unfinished:
        raise RunError(
            f"every restart of a run must be finished to forecast; got {len(unfinished)} of "
            f"{len(members)} that are not: {name_places(unfinished)}. Run `nfi fit` again with "
            f"--resume, or delete {folder.path / RESTARTS}/ and forecast a restart by itself."
        )
    data = open_panel(folder, panel)
    laws = []
    for member in members:
        trained = member.load_fit()
        require_label(trained, data)
        laws.append(forecast_returns(trained, data))
    ensemble = ForecastEnsemble(tuple(laws))
    for member, law in zip(members, laws, strict=True):
        law.data.attrs["panel_hash"] = panel_hash(data)
        law.save(member.path / FORECAST)
        member.record(FORECAST)
        if panel is not None:
            member.write_run(Path(panel))
    if out is not None:
        place = Path(out)
        make_folder(place.parent)
        write_atomically(place, last_date_table(ensemble).to_csv)
    return ensemble


def open_panel(folder: RunDirectory, panel: str | Path | None) -> Panel:
    """Return the panel given, or the one the run was made from, with the run's exposures if any.

    A run that was given exposures holds their model: its scores are computed anew, for any panel.
    """
    exposures = folder.load_exposures()
    if panel is not None:
        data = read_panel(panel)
    else:
        place = folder.panel_path()
        try:
            data = read_panel(place)
        except NfiError as error:
            raise RunError(
                f"the run's panel must be where it was; got {error} Pass --panel with its new "
                "place."
            ) from error
    return data if exposures is None else exposures.attach(data)


def last_date_table(laws: ForecastEnsemble) -> pd.DataFrame:
    """Return mean, deviation and quantiles by asset on the last date, in the label's unit.

    With several restarts also `within` and `between`: the standard deviation that one restart
    has on average (root mean square), and that of the restarts' means. Their squares add up to
    the square of `standard_deviation`.
    """
    day = ForecastEnsemble(tuple(ReturnForecast(m.data.isel(date=[-1])) for m in laws.members))
    columns = {"mean": day.mean, "standard_deviation": day.standard_deviation}
    if len(laws.members) > 1:
        columns |= {"within": day.within_variance**0.5, "between": day.between_variance**0.5}
    marginal = day.marginal()
    columns |= {f"quantile_{q:g}": marginal.quantile(q) for q in TABLE_QUANTILES}
    table = pd.DataFrame(
        {name: values.to_numpy()[0] for name, values in columns.items()},
        index=pd.Index(marginal.data["asset"].values, name="asset"),
    )
    table["date"] = str(marginal.data["date"].values[0])[:10]
    table["unit"] = str(marginal.data.attrs["unit"])
    return table.dropna().sort_values("mean", ascending=False)
