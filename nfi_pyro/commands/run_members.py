"""The fits that say how sure a run's figures are: its restarts, or draws of its last layers."""

from dataclasses import dataclass

from nfi_pyro.commands.run_directory import RunDirectory
from nfi_pyro.posterior.intervals import attained_level
from nfi_pyro.posterior.members import draw_fits
from nfi_pyro.svi.protocol import head_posterior
from nfi_pyro.svi.trained import SVIFit

DRAWS = 19  # the fewest whose interval holds 90 percent
RESTARTS, POSTERIOR, NONE = "restarts", "draws", "none"


@dataclass(frozen=True)
class RunMembers:
    """Fits whose figures spread as those of a run are unsure.

    Attributes
    ----------
    fits : tuple of SVIFit
        At least two, or none.
    source : {"restarts", "draws", "none"}
    about : str
        What an interval over them is, or why there is none, as a sentence.
    """

    fits: tuple[SVIFit, ...]
    source: str
    about: str


def members_of(folder: RunDirectory, fit: SVIFit, *, seed: int = 0) -> RunMembers:
    """Return the restarts of a run, else draws of its random last layers, else none.

    Raises
    ------
    RunError, CheckpointError
        If a restart is not finished or damaged.
    """
    restarts = folder.restarts
    if len(restarts) > 1:
        fits = (fit, *(member.load_fit() for member in restarts[1:]))
        about = (
            f"Intervals are of {len(fits)} restarts, the run among them; one more would fall "
            f"inside with probability {attained_level(len(fits)):.0%}. They say how much other "
            "seeds change a figure, and are no posterior."
        )
        return RunMembers(fits, RESTARTS, about)
    if head_posterior(fit.model) is not None:
        about = (
            f"Intervals hold {attained_level(DRAWS):.0%}, from {DRAWS} draws of the last layers; "
            "what is before them is held."
        )
        return RunMembers(draw_fits(fit, draws=DRAWS, seed=seed), POSTERIOR, about)
    return RunMembers(
        (),
        NONE,
        "There are no intervals: the run is one fit with point weights, which says nothing of its "
        "own error. Fit with --restarts, or with random heads.",
    )
