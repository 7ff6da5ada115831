"""`nfi forecast`: a run in, next-return distributions of every asset out."""

from pathlib import Path

import pandas as pd

from nfi_pyro.commands.run_directory import FORECAST, RunDirectory
from nfi_pyro.data.panel import Panel
from nfi_pyro.data.store.digests import panel_hash
from nfi_pyro.data.store.storage import read_panel
from nfi_pyro.errors import NfiError, RunError
from nfi_pyro.posterior.blocks import require_label
from nfi_pyro.posterior.forecasting import forecast as forecast_returns
from nfi_pyro.posterior.return_forecast import ReturnForecast
from nfi_pyro.svi.checkpoint import make_folder, write_atomically

TABLE_QUANTILES = (0.01, 0.05, 0.5, 0.95, 0.99)


def forecast(
    run: str | Path, *, panel: str | Path | None = None, out: str | Path | None = None
) -> ReturnForecast:
    """Return the forecasts of a run for every date of a panel, and keep them in the run.

    Parameters
    ----------
    run : path
        Run directory.
    panel : path, optional
        A panel with the run's features, for example with newer dates. Default: the run's own.
    out : path, optional
        CSV table of the last date: mean, standard deviation and quantiles by asset.

    Raises
    ------
    RunError, CheckpointError, PanelError
        Each names the place and the fix.
    """
    folder = RunDirectory(Path(run))
    trained = folder.load_fit()
    data = open_panel(folder, panel)
    require_label(trained, data)
    laws = forecast_returns(trained, data)
    laws.data.attrs["panel_hash"] = panel_hash(data)
    laws.save(folder.path / FORECAST)
    folder.record(FORECAST)
    if panel is not None:
        folder.write_run(Path(panel))
    if out is not None:
        place = Path(out)
        make_folder(place.parent)
        write_atomically(place, last_date_table(laws).to_csv)
    return laws


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


def last_date_table(laws: ReturnForecast) -> pd.DataFrame:
    """Return mean, deviation and quantiles by asset on the last date, in the label's unit."""
    day = ReturnForecast(laws.data.isel(date=[-1]))
    table = pd.DataFrame(
        {
            "mean": day.mean.values[0],
            "standard_deviation": day.standard_deviation.values[0],
            **{f"quantile_{q:g}": day.quantile(q).values[0] for q in TABLE_QUANTILES},
        },
        index=pd.Index(day.data["asset"].values, name="asset"),
    )
    table["date"] = str(day.data["date"].values[0])[:10]
    table["unit"] = str(day.data.attrs["unit"])
    return table.dropna().sort_values("mean", ascending=False)
