"""`nfi report`: a run in, one offline HTML page out."""

from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from nfi_pyro.commands.evaluation import (
    evaluate,
)
from nfi_pyro.commands.opened_run import open_run, write_page
from nfi_pyro.commands.report_attribution import report_attribution
from nfi_pyro.commands.run_directory import POSTERIOR, describe_provenance
from nfi_pyro.commands.state_movement import movement_of
from nfi_pyro.data.checks.quality import DropLedger
from nfi_pyro.data.labels import describe_label
from nfi_pyro.data.panel import Panel
from nfi_pyro.portfolio.risk import equal_weights, portfolio_risk
from nfi_pyro.portfolio.weights import read_weights
from nfi_pyro.posterior.arviz_bridge import read_inference_data
from nfi_pyro.posterior.exposure_pricing import pricing_law
from nfi_pyro.posterior.forecasting import COPULA
from nfi_pyro.posterior.return_forecast import ReturnForecast
from nfi_pyro.rendering.contents import ReportContents
from nfi_pyro.rendering.html import render_report
from nfi_pyro.svi.protocol import ExposurePricing
from nfi_pyro.svi.trained import SVIFit

LEVELS = (0.95, 0.99)
MOMENTS = ("prior_loc", "prior_scale", "posterior_loc", "posterior_scale")


def report(
    run: str | Path,
    out: str | Path,
    *,
    weights: str | Path | None = None,
    span: str | None = None,
    panel: str | Path | None = None,
    title: str | None = None,
) -> Path:
    """Write the risk report of a run as one HTML file that needs nothing else, and return it.

    Parameters
    ----------
    run : path
        Run directory.
    out : path
        The HTML file.
    weights : path, optional
        CSV of asset and weight; the equal-weight book by default.
    span : {"test", "validation"}, optional
        Which dates the evaluation is of; the test span where the split has one. Whoever chooses
        models by looking at the test span has no test span any more.
    panel : path, optional
        Where the run's panel is now.
    title : str, optional

    Raises
    ------
    RunError, CheckpointError, PanelError, WeightsError, SpecError
        Each names the place and the fix.
    """
    contents = collect(run, weights=weights, span=span, panel=panel, title=title)
    return write_page(out, render_report(contents))


def collect(
    run: str | Path,
    *,
    weights: str | Path | None = None,
    span: str | None = None,
    panel: str | Path | None = None,
    title: str | None = None,
) -> ReportContents:
    """Return everything that the report shows; arguments as in `report`."""
    opened = open_run(run, panel=panel, span=span)
    fit, laws, data, dates = opened.fit, opened.laws, opened.panel, opened.span
    result = evaluate(fit, laws, data, dates)
    moments = read_inference_data(opened.folder.verified(POSTERIOR)).constant_data
    day, prices = laws.on(), _prices(fit, data, laws)
    moved = movement_of(laws, dates, fit.split.train)
    given = None if weights is None else read_weights(weights)
    book = equal_weights(laws) if given is None else given
    name = "equal weight" if weights is None else Path(weights).name
    return ReportContents(
        title=title or f"Risk report: {opened.title}",
        provenance=describe_provenance(fit),
        ledger=DropLedger.from_json(str(data.attrs["ledger"])).to_frame(),
        coverage=_universe(data, laws),
        history=fit.history,
        evaluation_span=opened.describe_span(
            f"{result.information_coefficient.n_dates} with a Rank IC"
        ),
        information_coefficient=result.information_coefficient,
        calibration=result.calibration,
        scores=result.scores,
        factors=_factors(moments),
        exposures=_exposures(day, prices),
        exposures_are_given=fit.model.uses_exposures,
        copula_loading=_of_assets(day[COPULA]) if COPULA in day else None,
        pricing=prices,
        risks=asset_risks(laws),
        portfolio=portfolio_risk(laws, book, levels=LEVELS),
        portfolio_name=name,
        label=describe_label(data["forward_return"].attrs),
        movement=None if isinstance(moved, str) else moved,
        attribution=report_attribution(opened, given, name),
    )


def asset_risks(laws: ReturnForecast) -> pd.DataFrame:
    """Return the predictive risk of each asset on the last date, largest deviation first.

    Columns mean, standard_deviation, specific_share (of variance; under a copula what it does not
    share, to first order), value_at_risk and expected_shortfall at 95 and 99 percent; decimal
    returns, losses positive.
    """
    day = laws.on()
    kept = np.flatnonzero(day["entered"].values)
    last = ReturnForecast(laws.data.isel(date=[-1], asset=kept))
    specific = last.covariance().specific_variance
    table = pd.DataFrame(
        {
            "mean": last.mean.values[0],
            "standard_deviation": last.standard_deviation.values[0],
            "specific_share": specific / last.variance.values[0],
            **{
                f"value_at_risk_{level:.0%}"[:-1]: last.value_at_risk(level).values[0]
                for level in LEVELS
            },
            **{
                f"expected_shortfall_{level:.0%}"[:-1]: last.expected_shortfall(level).values[0]
                for level in LEVELS
            },
        },
        index=pd.Index(day["asset"].values[kept], name="asset"),
    )
    return table.sort_values("standard_deviation", ascending=False)


def _prices(fit: SVIFit, panel: Panel, laws: ReturnForecast) -> xr.Dataset | None:
    """Return the pricing law of the forecast date, or None where hidden features are priced."""
    if not isinstance(fit.model, ExposurePricing):
        return None
    return pricing_law(fit, panel, laws.data["date"].values[-1]).evaluate()


def _factors(constants: xr.Dataset) -> xr.Dataset | None:
    """Return the factors' moments of the dates with an outcome, or None without factors.

    On a date without one the posterior is the prior, and shows nothing.
    """
    if MOMENTS[0] not in constants:
        return None
    seen = constants["observed"].values.astype(bool).any(axis=1)
    return constants[list(MOMENTS)].isel(date=seen)


def _exposures(day: xr.Dataset, prices: xr.Dataset | None) -> xr.DataArray:
    """Return the loadings on the factors; without factors, the exposures that are priced."""
    if "beta" in day or prices is None:
        return _of_assets(day["beta"])
    return prices["beta"].reset_coords(drop=True)


def _of_assets(values: xr.DataArray) -> xr.DataArray:
    """Return the rows of the assets that have a forecast."""
    return values.dropna("asset").reset_coords(drop=True)


def _universe(data: Panel, laws: ReturnForecast) -> xr.Dataset:
    """Return the number of assets listed, tradable and entered by date."""
    tradable = data["tradable"]
    listed = data["close"].notnull() if "close" in data else tradable
    entered = laws.data["entered"].reindex_like(tradable, fill_value=False)
    return xr.Dataset(
        {
            "listed": listed.sum("asset"),
            "tradable": tradable.sum("asset"),
            "entered": entered.sum("asset"),
        }
    )
