"""A directory of a fitted exposure model: all that scores a panel, and what it was made with."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import xarray as xr

from nfi_pyro.data.panel import Panel, check_panel
from nfi_pyro.data.splits import DateSplit
from nfi_pyro.data.training.transform_chain import TransformChain
from nfi_pyro.data.training.transformed import complete_rows, transformed_features
from nfi_pyro.dims import FACTOR
from nfi_pyro.errors import PanelError, RunError, SpecError, SplitError
from nfi_pyro.exposures.scoring import ExposureFit, score_cells
from nfi_pyro.exposures.store import check_method, pack_fit, unpack_fit
from nfi_pyro.svi.checkpoint import (
    MANIFEST,
    make_folder,
    read_json,
    verify_file,
    write_atomically,
    write_json,
)
from nfi_pyro.svi.trained import read_manifest, update_manifest

MODEL = "exposure_model.npz"
DESCRIPTION = "exposure.json"


@dataclass(frozen=True)
class ExposureRun:
    """A fitted exposure model with everything that scores another panel.

    Attributes
    ----------
    method : {"pca", "ppca", "vae"}
    fit : PCAFit, PPCAFit or VAEFit
        Fitted on the training span.
    transforms : TransformChain
        Of features, fitted on the training span.
    split : DateSplit
        The span it was fitted on, and the one that chose or stopped it.
    seed : int
    lineage : dict
        Options, panel hash, counts, evidence, versions; JSON values.
    """

    method: str
    fit: ExposureFit
    transforms: TransformChain
    split: DateSplit
    seed: int
    lineage: dict[str, Any] = field(default_factory=dict)

    @property
    def identity(self) -> str:
        """SHA-256 of model, transforms, split and lineage: what tells two runs apart."""
        digest = hashlib.sha256(pack_fit(self.fit))
        digest.update(json.dumps(self._description(), sort_keys=True).encode())
        return digest.hexdigest()

    @property
    def known_until(self) -> tuple[str, str]:
        """Last training day, and last day that it saw at all: validation may have chosen it."""
        train, validation = self.split.train.last, self.split.validation.last
        return train, validation if self.lineage["validation_used"] else train

    def save(self, folder: str | Path) -> Path:
        """Write the run into `folder` and return it; the manifest is written last.

        Raises
        ------
        CheckpointError
            If a file cannot be written; files already there stay whole.
        """
        target = make_folder(Path(folder))
        content = pack_fit(self.fit)
        write_atomically(target / MODEL, lambda place: place.write_bytes(content))
        write_json(target / DESCRIPTION, self._description())
        update_manifest(target, MODEL, DESCRIPTION)
        return target

    def _description(self) -> dict[str, Any]:
        return {
            "method": self.method,
            "transforms": self.transforms.as_dict(),
            "split": self.split.as_dict(),
            "seed": self.seed,
            "lineage": self.lineage,
        }

    @classmethod
    def load(cls, folder: str | Path) -> "ExposureRun":
        """Return the run in `folder`; no code in its files is run.

        Raises
        ------
        RunError
            If `folder` holds no exposure run, or one of another version.
        CheckpointError
            If a file is missing, truncated or altered.
        """
        target = Path(folder)
        digests = read_manifest(target) if (target / MANIFEST).is_file() else {}
        if not {MODEL, DESCRIPTION} & set(digests):
            raise RunError(
                f"an exposure run must be a folder that `nfi synthesise --out` wrote; got "
                f"{'another run' if digests else 'none'} at {target}. Run `nfi synthesise` first."
            )
        places = {name: verify_file(target, name, digests) for name in (MODEL, DESCRIPTION)}
        stored = read_json(places[DESCRIPTION])
        try:
            method = check_method(stored["method"])
            values: dict[str, Any] = {
                "transforms": TransformChain.from_dict(stored["transforms"]),
                "split": DateSplit.from_dict(stored["split"]),
                "seed": int(stored["seed"]),
                "lineage": dict(stored["lineage"]),
            }
        except (SpecError, SplitError, KeyError, TypeError, ValueError, AttributeError) as error:
            said = " ".join(str(error).split())[:200]
            raise RunError(
                f"{DESCRIPTION} of an exposure run must be that of this version; got "
                f"{type(error).__name__} ({said}) at {target}. Run `nfi synthesise` again."
            ) from error
        return cls(method, unpack_fit(method, places[MODEL].read_bytes()), **values)

    def score(self, panel: Panel) -> xr.DataArray:
        """Return the exposures of a panel, float32 (date, asset, factor), NaN where there is none.

        Parameters
        ----------
        panel : Panel
            Raw features, the same names in the same order; its returns are not read.

        Returns
        -------
        DataArray
            Known at the close of each date after the training span. Attributes, texts and lists
            of texts, say where it comes from and how many tradable cells have no score.

        Raises
        ------
        PanelError
            If the panel's features are not those of the run.
        """
        features = transformed_features(panel, self.transforms)
        scores = score_cells(self.fit, features, panel["tradable"], complete_rows(features))
        tradable = panel["tradable"].to_numpy()
        missing = int((tradable & scores.isnull().any(FACTOR).to_numpy()).sum())
        return scores.assign_attrs(
            source=self.name,
            run=self.identity,
            train=[self.split.train.first, self.split.train.last],
            known_until=self.known_until[1],
            features=list(self.transforms.features),
            seed=str(self.seed),
            fitted_panel_hash=str(self.lineage["panel_hash"]),
            n_tradable=str(int(tradable.sum())),
            n_without_score=str(missing),
        )

    @property
    def name(self) -> str:
        """The method and how it was used, for example ``pca expanding``."""
        return f"pca {self.lineage['options']['mode']}" if self.method == "pca" else self.method

    def attach(self, panel: Panel) -> Panel:
        """Return the panel with its scores as the variable ``exposures``.

        Raises
        ------
        PanelError
            If the panel has exposures already, or other features.
        """
        if "exposures" in panel:
            raise PanelError(
                "a panel must have exposures of its own or be given a run of `nfi synthesise`, not "
                "both; got both. Drop them: panel.drop_dims('factor')."
            )
        return check_panel(panel.assign(exposures=self.score(panel)))

    def require_earlier(self, split: DateSplit) -> None:
        """Refuse a fit on a shorter past than the one that the exposures were made of.

        Raises
        ------
        SplitError
            If the run was fitted on dates after the training span of `split`, or chosen or
            stopped on dates after its validation span.
        """
        train, seen = self.known_until
        limits = (
            ("fitted on", train, "training", split.train.last),
            ("chosen on", seen, "validation", max(split.train.last, split.validation.last)),
        )
        for what, day, span, last in limits:
            if day > last:
                raise SplitError(
                    f"exposures must not be {what} dates after the {span} span of the fit, which "
                    f"ends on {last}; got {day}. Run `nfi synthesise --spec` with the [split] of "
                    "the fit."
                )


def describe_lineage(given: Mapping[str, Any]) -> dict[str, str]:
    """Return where the exposures that a fit was given come from, and what has none, as text."""
    missing, tradable = int(given["n_without_score"]), int(given["n_tradable"])
    return {
        "source": f"{given['source']} of {len(given['features'])} features",
        "names": ", ".join(given["names"]),
        "fitted on": f"{given['train'][0]} to {given['train'][1]}",
        "known until": str(given["known_until"]),
        "without a score": f"{missing:,} of {tradable:,} tradable asset-dates; they do not enter",
        "exposure run (sha256)": str(given["run"])[:16],
    }


def describe_given(given: Mapping[str, Any]) -> list[str]:
    """Return the same for a terminal, two lines."""
    told = describe_lineage(given)
    return [
        f"exposures {len(given['names'])} of {told['source']}, fitted on {told['fitted on']}",
        f"          without a score {told['without a score']}",
    ]
