"""A run opened for a page: its fit, its forecasts, the panel that they are of, and a span."""

from dataclasses import dataclass
from pathlib import Path

from nfi_pyro.commands.evaluation import KNOWN_IN_TRAINING, evaluation_span
from nfi_pyro.commands.predicting import open_panel
from nfi_pyro.commands.run_directory import RunDirectory
from nfi_pyro.data.panel import Panel
from nfi_pyro.data.splits import DateSpan
from nfi_pyro.data.store.digests import panel_hash
from nfi_pyro.errors import RunError
from nfi_pyro.posterior.return_forecast import ReturnForecast
from nfi_pyro.svi.checkpoint import make_folder, write_atomically
from nfi_pyro.svi.trained import SVIFit


@dataclass(frozen=True)
class OpenedRun:
    """What a page is made from.

    Attributes
    ----------
    folder : RunDirectory
    fit : SVIFit
    panel : Panel
        With the run's exposures, if any.
    laws : ReturnForecast
        Of every date of the panel with a full window.
    span_name : {"test", "validation"}
    span : DateSpan
        The dates that the page is about.
    """

    folder: RunDirectory
    fit: SVIFit
    panel: Panel
    laws: ReturnForecast
    span_name: str
    span: DateSpan

    @property
    def title(self) -> str:
        """Model and source of the prices."""
        return f"{self.fit.provenance['model']} on {self.panel.attrs['source']}"

    def describe_span(self, count: str) -> str:
        """Return which dates the page is about, how many, and what training knew of them."""
        return (
            f"{self.span_name} dates {self.span.first} to {self.span.last} ({count}), "
            f"{KNOWN_IN_TRAINING[self.span_name]}"
        )


def open_run(run: str | Path, *, panel: str | Path | None, span: str | None) -> OpenedRun:
    """Return a run with its panel, after checking that they belong together.

    Parameters
    ----------
    run : path
        Run directory.
    panel : path or None
        Where the run's panel is now; where it was by default.
    span : {"test", "validation"} or None
        See `evaluation_span`.

    Raises
    ------
    RunError, CheckpointError, PanelError, SpecError
        Each names the place and the fix.
    """
    folder = RunDirectory(Path(run))
    fit = folder.load_fit()
    name, dates = evaluation_span(fit, span)
    data = open_panel(folder, panel)
    return OpenedRun(folder, fit, data, load_laws(folder, panel_hash(data)), name, dates)


def load_laws(folder: RunDirectory, digest: str) -> ReturnForecast:
    """Return the forecasts of a run, if they are of the panel with this digest.

    Raises
    ------
    RunError
        If they are of another.
    """
    laws = folder.load_forecast()
    if laws.data.attrs["panel_hash"] != digest:
        raise RunError(
            "the run's forecasts must be of the panel that is reported on; got another panel for "
            f"{folder.path}. Run `nfi forecast {folder.path} --panel PANEL` first."
        )
    return laws


def write_page(out: str | Path, page: str) -> Path:
    """Write an HTML page, atomically, and return its path."""
    place = Path(out)
    make_folder(place.parent)
    write_atomically(place, lambda path: path.write_text(page, encoding="utf-8"))
    return place
