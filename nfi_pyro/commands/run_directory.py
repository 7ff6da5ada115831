"""A run directory: which file holds what, and how each is read back after a check."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nfi_pyro.commands.exposure_run import ExposureRun, describe_lineage
from nfi_pyro.errors import CheckpointError, RunError
from nfi_pyro.posterior.return_forecast import ReturnForecast
from nfi_pyro.svi.checkpoint import MANIFEST, make_folder, read_json, verify_file, write_json
from nfi_pyro.svi.trained import SVIFit, read_manifest, update_manifest

CHECKPOINT = "checkpoint.bin"
POSTERIOR = "posterior.nc"
FORECAST = "forecast.nc"
RUN = "run.json"
EXPOSURES = "exposures"
RESTARTS = "restarts"
PLAN = "restarts.json"
_EXPOSURE_MANIFEST = f"{EXPOSURES}/{MANIFEST}"


@dataclass(frozen=True)
class RunDirectory:
    """Paths of one run.

    ``spec.json``, ``config.json``, ``fit.json`` (split, scales, provenance),
    ``weights.safetensors`` and ``history.nc`` are the fit; ``posterior.nc`` is its
    InferenceData, ``forecast.nc`` its forecasts, ``run.json`` where the panel lies,
    ``manifest.json`` the digest of each, ``checkpoint.bin`` the state of an unfinished fit.
    ``exposures/`` is a copy of the exposure run that the fit was given, where there was one.
    ``restarts.json`` says how many restarts there are, this run being the first; the others are
    run directories ``restarts/1``, ``restarts/2``, ...
    """

    path: Path

    @property
    def checkpoint(self) -> Path:
        """State of an unfinished fit."""
        return self.path / CHECKPOINT

    @property
    def is_complete(self) -> bool:
        """Whether a fit was saved here."""
        return (self.path / MANIFEST).is_file()

    @property
    def is_finished(self) -> bool:
        """Whether a fit was saved here and nothing is left to do."""
        return self.is_complete and not self.checkpoint.exists()

    @property
    def restarts(self) -> tuple["RunDirectory", ...]:
        """Every restart, this run first; this run alone where it has no others.

        Raises
        ------
        CheckpointError
            If the record of the restarts is missing or altered.
        """
        number = self.read_plan().get("restarts", 1)
        folder = self.path / RESTARTS
        return (self, *(RunDirectory(folder / str(place)) for place in range(1, number)))

    def read_plan(self) -> dict[str, int]:
        """Return number (`restarts`) and first `seed` of the restarts; empty for a fit alone.

        Raises
        ------
        CheckpointError
            If the record is missing or altered.
        """
        place = self.path / PLAN
        if self.is_complete and PLAN in read_manifest(self.path):
            self.verified(PLAN)
        elif not place.is_file():  # before the fit has ended there is no manifest to ask
            return {}
        plan = read_json(place)
        if not isinstance(plan, dict) or {type(plan.get(k)) for k in ("restarts", "seed")} != {int}:
            raise CheckpointError(
                f"{place} must say the number and first seed of the restarts; got {plan!r}. "
                "Restore it, or fit again."
            )
        return plan

    def write_plan(self, n_restarts: int, seed: int) -> None:
        """Say how many restarts there are, and the seed of the first."""
        write_json(self.path / PLAN, {"restarts": n_restarts, "seed": seed})

    def load_fit(self) -> SVIFit:
        """Return the fit."""
        return SVIFit.load(self.path)

    def load_forecast(self) -> ReturnForecast:
        """Return the forecasts."""
        return ReturnForecast.load(self.verified(FORECAST))

    def panel_path(self) -> Path:
        """Return where the panel lay when the run was made."""
        found = read_json(self.verified(RUN))
        if not isinstance(found, dict) or "panel" not in found:
            raise RunError(
                f"{self.path / RUN} must say where the panel lies; got {found!r}. Pass --panel."
            )
        return Path(str(found["panel"]))

    def verified(self, name: str) -> Path:
        """Return the path of a file of the run after checking its digest."""
        return verify_file(self.path, name, read_manifest(self.path))

    def write_run(self, panel: Path) -> None:
        """Record where the panel lies."""
        write_json(self.path / RUN, {"panel": str(panel.resolve())})
        self.record(RUN)

    def write_exposures(self, exposures: ExposureRun) -> None:
        """Keep a copy of the exposure run that the fit was given."""
        exposures.save(self.path / EXPOSURES)
        self.record(_EXPOSURE_MANIFEST)

    def load_exposures(self) -> ExposureRun | None:
        """Return the exposure run that the fit was given; None where there was none."""
        if _EXPOSURE_MANIFEST not in read_manifest(self.path):
            return None
        self.verified(_EXPOSURE_MANIFEST)
        return ExposureRun.load(self.path / EXPOSURES)

    def record(self, *names: str) -> None:
        """Add files to the manifest."""
        update_manifest(self.path, *names)

    def claim(self, *, resume: bool, resumable: bool = True) -> None:
        """Make the folder, and refuse to overwrite what something else left there.

        Resuming what has not begun begins it: a fit may have ended before its first epoch.
        Without `resumable` the error does not speak of resuming.

        Raises
        ------
        RunError
            If the folder holds a run and `resume` is false, or holds something else.
        CheckpointError
            If the folder cannot be made.
        """
        begun = self.checkpoint.exists() or (not self.is_complete and (self.path / PLAN).exists())
        if self.is_complete or begun:
            if resume:
                return
            state = "an unfinished fit" if begun else "a finished run"
            go_on = ", pass --resume to go on," if resumable else ""
            fix = f"Choose another --out{go_on} or delete the folder."
        elif any(self.path.glob("[!.]*")):
            state, fix = "other files", "Choose another --out."
        else:
            make_folder(self.path)
            return
        raise RunError(
            f"a new run must have a folder of its own; got {state} at {self.path}. {fix}"
        )

    def release(self) -> None:
        """Remove the folder again if nothing was written into it."""
        with suppress(OSError):
            self.path.rmdir()


def describe_provenance(fit: SVIFit) -> dict[str, dict[str, str]]:
    """Return what was fitted on what, by section, as text."""
    p: dict[str, Any] = fit.provenance
    split = {name: p["split"][name] for name in ("train", "validation", "test")}
    spans = {name: f"{span['first']} to {span['last']}" for name, span in split.items() if span}
    spec = {key: str(value) for key, value in p["spec"].items()}
    given = p.get("exposures", {})
    training = {key: str(value) for key, value in p["config"].items()}
    training |= {
        "status": fit.status,
        "best epoch": str(int(fit.history.attrs["best_epoch"])),
        "epochs run": str(fit.history.sizes["epoch"]),
        "skipped non-finite steps": str(p["n_skipped_steps"]),
        "wall time": f"{p['wall_seconds']:.1f} s",
    }
    return {
        "Data": {
            "source": p["source"],
            "dates": f"{p['first_date']} to {p['last_date']} ({p['n_dates']:,} trading days)",
            "assets": f"{p['n_assets']:,}",
            "tradable asset-dates": f"{p['n_tradable_cells']:,}",
            "of these with a full window": f"{p['n_entered_cells']:,}",
            "panel hash (sha256)": p["panel_hash"][:16],
        },
        "Dates": {
            **spans,
            "purged before a boundary": f"{p['split']['n_purged']} dates",
            "training standard deviation of returns": f"{fit.return_scale:.4%}",
        },
        "Model": {"name": p["model"], **spec, "parameters": f"{p['n_parameters']:,}"},
        **({"Exposures": describe_lineage(given)} if "run" in given else {}),
        "Training": training,
        "Versions": {
            **p["versions"],
            "seed": str(fit.seed),
            "device": f"{p['device']}, {p['threads']} threads",
        },
    }
