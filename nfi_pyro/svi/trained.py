"""A finished fit: the trained model with everything that a forecast needs, and its files."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5netcdf
import xarray as xr
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from xarray.backends import H5NetCDFStore

from nfi_pyro.catalogue import find_model
from nfi_pyro.data.splits import DateSplit
from nfi_pyro.data.training.transform_chain import TransformChain
from nfi_pyro.distributions.copula import GaussianCopula
from nfi_pyro.errors import CheckpointError, RunError, SpecError
from nfi_pyro.svi.checkpoint import (
    MANIFEST,
    file_digest,
    make_folder,
    read_json,
    verify_file,
    write_atomically,
    write_json,
)
from nfi_pyro.svi.config import SVIConfig

FORMAT = 3
_PLAIN = ("seed", "return_scale", "label", "provenance", "status")
_FILES = ("spec.json", "config.json", "fit.json", "weights.safetensors", "history.nc")


@dataclass(frozen=True)
class SVIFit:
    """A trained model and what it was trained with.

    Attributes
    ----------
    model : PricingModel
        At its best validation log score, on the CPU, in evaluation mode.
    config : SVIConfig
    seed : int
    split : DateSplit
        Signal dates after purging.
    transforms : TransformChain
        Of features, fitted on the training dates.
    return_scale : float
        Standard deviation of the training labels, in the label's unit (decimal for returns); the
        model works in units of it, and forecasts come back in the label's.
    label : dict
        `start_lag`, `horizon` (trading days), `unit` and, where known, `kind`, `price` and
        `benchmark` of the return.
    history : Dataset
        Training curves over (step,), (step, factor) and (epoch,), counted from 1; attr
        `best_epoch` is the epoch whose weights were kept, 0 when none had ended.
    provenance : dict
        Versions, panel hash, spans, counts, wall time; JSON values.
    status : {"finished", "early stopped", "interrupted"}
    copula : GaussianCopula, optional
        How assets depend on each other, where the model's law has no shared factor.
    """

    model: Any
    config: SVIConfig
    seed: int
    split: DateSplit
    transforms: TransformChain
    return_scale: float
    label: dict[str, Any]
    history: xr.Dataset
    provenance: dict[str, Any]
    status: str
    copula: GaussianCopula | None = None

    def save(self, folder: str | Path) -> Path:
        """Write the fit into `folder` and return it; the manifest is written last.

        Raises
        ------
        CheckpointError
            If a file cannot be written; files already there stay whole.
        """
        target = make_folder(Path(folder))
        name, spec = self.model.name, self.model.spec
        write_json(target / "spec.json", {"model": name, "spec": spec.model_dump()})
        write_json(target / "config.json", self.config.model_dump())
        write_json(
            target / "fit.json",
            {
                "seed": self.seed,
                "split": self.split.as_dict(),
                "transforms": self.transforms.as_dict(),
                "return_scale": self.return_scale,
                "label": self.label,
                "provenance": self.provenance,
                "status": self.status,
                "copula": None if self.copula is None else self.copula.as_dict(),
            },
        )
        weights = {key: value.contiguous() for key, value in self.model.state_dict().items()}
        # Files are made in memory first: neither library fails as an OSError on a full disk.
        content = save(weights)
        write_atomically(target / "weights.safetensors", lambda place: place.write_bytes(content))
        write_dataset(self.history, target / "history.nc")
        update_manifest(target, *_FILES)
        return target

    @classmethod
    def load(cls, folder: str | Path) -> "SVIFit":
        """Return the fit in `folder`; no code in its files is run.

        Raises
        ------
        RunError
            If `folder` is not a run or was written in another format.
        CheckpointError
            If a file is missing, truncated or altered.
        """
        target = Path(folder)
        digests = read_manifest(target)
        places = {name: verify_file(target, name, digests) for name in _FILES}
        stored, fit = read_json(places["spec.json"]), read_json(places["fit.json"])
        try:
            entry = find_model(stored["model"])
            model = entry.model_class()(entry.spec_class().model_validate(stored["spec"]))
            values: dict[str, Any] = {
                "config": SVIConfig.model_validate(read_json(places["config.json"])),
                "split": DateSplit.from_dict(fit["split"]),
                "transforms": TransformChain.from_dict(fit["transforms"]),
                "copula": fit["copula"] and GaussianCopula.from_dict(fit["copula"]),
                **{name: fit[name] for name in _PLAIN},
            }
        except (SpecError, ValidationError, KeyError, TypeError, AttributeError) as error:
            raise RunError(
                f"the spec, config and fit of a run must be those of this version; got "
                f"{_one_line(error)} at {target}. Fit again with this version."
            ) from error
        try:
            model.load_state_dict(load_file(places["weights.safetensors"]))
        except (SafetensorError, RuntimeError) as error:
            raise CheckpointError(
                f"the weights must fit the spec; got {_one_line(error)} at {target}. Fit again."
            ) from error
        return cls(model=model.eval(), history=read_dataset(places["history.nc"]), **values)


def _one_line(error: Exception, limit: int = 200) -> str:
    """Return kind and message of an error on one line, cut to `limit` characters."""
    text = f"{type(error).__name__} ({' '.join(str(error).split())}"
    return f"{text[:limit]} ...)" if len(text) > limit else f"{text})"


def write_dataset(dataset: xr.Dataset, path: Path) -> None:
    """Write a dataset as netCDF, atomically."""
    write_groups({"/": dataset}, path)


def write_groups(groups: Mapping[str, xr.Dataset], path: Path) -> None:
    """Write datasets by group (``/`` is the root) as one netCDF file, atomically.

    The bytes are made in memory: HDF5 ends the process when a disk fills up under an open file.
    """
    content = io.BytesIO()
    with h5netcdf.File(content, "w") as opened:
        for group, dataset in groups.items():
            encoding = {
                str(name): {"zlib": True, "complevel": 1}
                for name, variable in dataset.data_vars.items()
                if variable.dtype.kind == "f" and variable.ndim
            }
            place = opened if group == "/" else opened.create_group(group)
            dataset.dump_to_store(H5NetCDFStore(place), encoding=encoding)
    write_atomically(path, lambda place: place.write_bytes(content.getbuffer()))


def read_dataset(path: Path) -> xr.Dataset:
    """Return a netCDF dataset, loaded into memory.

    Raises
    ------
    CheckpointError
        If the file is missing or is no netCDF.
    """
    try:
        with xr.open_dataset(path, engine="h5netcdf") as opened:
            return opened.load()
    except OSError as error:
        raise CheckpointError(
            f"{path} must be readable netCDF; got {_one_line(error)}. The file is missing, "
            "truncated or was altered: restore it, or fit again."
        ) from error


def update_manifest(folder: Path, *names: str) -> None:
    """Record the digests of files of a run, keeping those recorded before."""
    digests = read_manifest(folder) if (folder / MANIFEST).exists() else {}
    digests |= {name: file_digest(folder / name) for name in names}
    write_json(folder / MANIFEST, {"format": FORMAT, "sha256": digests})


def read_manifest(folder: Path) -> dict[str, str]:
    """Return the digests of a run's files.

    Raises
    ------
    RunError
        If `folder` is not a run directory or has another format.
    CheckpointError
        If the manifest is damaged.
    """
    if not (folder / MANIFEST).is_file():
        raise RunError(
            f"a run directory must hold {MANIFEST}; got none at {folder}. Point to a folder that "
            "`nfi fit --out` wrote, or finish the fit with --resume."
        )
    manifest = read_json(folder / MANIFEST)
    found = manifest.get("format") if isinstance(manifest, dict) else None
    if found != FORMAT:
        raise RunError(
            f"a run directory must have format {FORMAT}; got {found} at {folder}. It was written "
            "by another version of nfi_pyro: use that version, or fit again."
        )
    digests = manifest.get("sha256")
    if not isinstance(digests, dict):
        raise CheckpointError(
            f"{folder / MANIFEST} must list the digest of each file; got {digests!r}. It was "
            "altered: restore it, or fit again."
        )
    return digests
