"""What a spec file says: the model, how it is trained, and on which dates."""

import tomllib
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from nfi_pyro.catalogue import MODELS, find_model
from nfi_pyro.data.splits import DateSplit, Span, split_dates
from nfi_pyro.errors import MAX_PLACES, SpecError
from nfi_pyro.svi.config import SVIConfig


class SplitSettings(BaseModel):
    """First and last signal date of each span, ISO days; all absent means 70/15/15 percent.

    `embargo` more dates are left out before each span, beyond the purge.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    train: Span | None = None
    validation: Span | None = None
    test: Span | None = None
    embargo: int = Field(default=0, ge=0)

    @field_validator("train", "validation", "test", mode="before")
    @classmethod
    def _as_days(cls, span: Any) -> Any:
        """Take TOML's own dates as well as texts."""
        if isinstance(span, list):
            return [str(day) if isinstance(day, date) else day for day in span]
        return span

    def resolve(self, dates: np.ndarray, label: dict[str, Any]) -> DateSplit:
        """Return the purged split of a panel's dates."""
        return split_dates(
            dates,
            train=self.train,
            validation=self.validation,
            test=self.test,
            start_lag=int(label["start_lag"]),
            horizon=int(label["horizon"]),
            embargo=self.embargo,
        )


@dataclass(frozen=True)
class FitSettings:
    """Model name, its spec, training configuration and split of one fit."""

    model: str
    spec: BaseModel
    svi: SVIConfig
    split: SplitSettings

    def for_panel(self, panel: xr.Dataset) -> "FitSettings":
        """Return the settings with the panel's numbers of features and exposures where open.

        Exposures are the panel's own, else its features.
        """
        sizes = {"n_features": panel.sizes["feature"], "n_exposures": panel.sizes["feature"]}
        if "exposures" in panel:
            sizes["n_exposures"] = panel.sizes["factor"]
        known = type(self.spec).model_fields
        open_ = {k: n for k, n in sizes.items() if k in known and getattr(self.spec, k) is None}
        return replace(self, spec=self.spec.model_copy(update=open_))


_SECTIONS = ("model", "spec", "svi", "split")


def read_settings(spec: str | Path) -> FitSettings:
    """Return the settings of a TOML file, or the defaults of a model named `spec`.

    Parameters
    ----------
    spec : str or path
        ``factor_vae``, or a file with ``model = "factor_vae"`` and the tables ``[spec]``,
        ``[svi]`` and ``[split]``, each of which may be left out.

    Raises
    ------
    SpecError
        If the file is missing or does not parse, or a key is unknown or out of range.
    """
    if str(spec) in MODELS:
        return make_settings({"model": str(spec)}, where=f"the defaults of {spec}")
    content = read_toml(spec, f"a spec must be a TOML file or one of {', '.join(sorted(MODELS))}")
    return make_settings(content, where=str(spec))


def read_toml(place: str | Path, rule: str) -> dict[str, Any]:
    """Return the tables of a TOML file; `rule` begins the error where there is none.

    Raises
    ------
    SpecError
        If the file is missing or does not parse.
    """
    path = Path(place)
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(
            f"{rule}; got {place} "
            f"({error.strerror if isinstance(error, OSError) else error}). Check the path."
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise SpecError(f"{path} must be valid TOML; got {error}. Correct that line.") from error


def make_settings(content: dict[str, Any], *, where: str) -> FitSettings:
    """Return checked settings from plain values; `where` names their origin in errors."""
    unknown = sorted(set(content) - set(_SECTIONS))
    if unknown:
        raise SpecError(
            f"a spec's sections must be among {', '.join(_SECTIONS)}; got {', '.join(unknown)} in "
            f"{where}. Hyper-parameters go below [spec], training below [svi]."
        )
    if "model" not in content:
        raise SpecError(
            f'a spec must name its model; got none in {where}. Write model = "factor_vae".'
        )
    entry = find_model(str(content["model"]))
    return FitSettings(
        model=str(content["model"]),
        spec=validated(entry.spec_class(), content, "spec", where),
        svi=validated(SVIConfig, content, "svi", where),
        split=validated(SplitSettings, content, "split", where),
    )


def validated(kind: type[Any], content: dict[str, Any], section: str, where: str) -> Any:
    """Return one section as its class, with pydantic's findings in our words."""
    try:
        return kind.model_validate(content.get(section, {}))
    except ValidationError as error:
        found = [_finding(section, item) for item in error.errors()]
        more = f" and {len(found) - MAX_PLACES} more" if len(found) > MAX_PLACES else ""
        known = ", ".join(kind.model_fields)
        raise SpecError(
            f"{'; '.join(found[:MAX_PLACES])}{more}, in {where}. Known keys: {known}."
        ) from error


def _finding(section: str, item: Any) -> str:
    """Return one pydantic finding as ``<what> must <rule>; got <value>``."""
    key = ".".join([section, *(str(part) for part in item["loc"])])
    if item["type"] == "extra_forbidden":
        return f"{key} must be a known key; got an unknown one"
    if item["type"] in ("too_long", "missing") and section == "split":
        return f"{key} must be a first and a last day; got {item['input']!r}"
    rule = item["msg"].removeprefix("Input should be ")
    return f"{key} must be {rule}; got {item['input']!r}"
