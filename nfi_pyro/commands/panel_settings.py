"""What a panel file says: how prices are read, what the panel is made of, who is tradable."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import pandas as pd

from nfi_pyro.data.market.price_limits import read_price_limits
from nfi_pyro.data.market.universe import UniverseRules
from nfi_pyro.data.panel_spec import PanelSpec
from nfi_pyro.data.sources.vendors import PARTS
from nfi_pyro.dims import ASSET
from nfi_pyro.errors import SpecError

_READING = ("layout", "vendor", "fields", "calendar", "columns", "policies")
_PANEL = tuple(item.name for item in fields(PanelSpec) if item.name != "universe")
_UNIVERSE = tuple(item.name for item in fields(UniverseRules))
_SECTIONS = {"reading": _READING, "panel": _PANEL, "universe": _UNIVERSE}


@dataclass(frozen=True)
class PanelSettings:
    """Options of `read_prices` and of `build_panel`, as one file gives them."""

    reading: dict[str, Any] = field(default_factory=dict)
    panel: dict[str, Any] = field(default_factory=dict)

    def with_options(
        self, *, reading: Mapping[str, Any], panel: Mapping[str, Any]
    ) -> "PanelSettings":
        """Return the settings with options that are given (not None) in place of the file's."""
        kept = {key: value for key, value in panel.items() if value is not None}
        read = {key: value for key, value in reading.items() if value is not None}
        policies = {**self.reading.get("policies", {}), **read.pop("policies", {})}
        joined = {**self.reading, **read}
        return PanelSettings(
            joined | ({"policies": policies} if policies else {}), {**self.panel, **kept}
        )


def read_panel_settings(path: str | Path) -> PanelSettings:
    """Return the settings of a TOML file; files it names are relative to its own folder.

    Parameters
    ----------
    path : str or path
        With the tables ``[reading]`` (layout, vendor, fields, calendar (a file of one date a
        line), ``columns`` and ``policies`` (tables)), ``[panel]`` (fields of `PanelSpec`; limits
        and listing_dates are files, the latter a CSV of instrument and date) and ``[universe]``
        (fields of `UniverseRules`; spells is a file). Each may be left out.

    Raises
    ------
    SpecError
        If a file is missing or does not parse, or a key is unknown.
    """
    place = Path(path)
    try:
        content = tomllib.loads(place.read_text(encoding="utf-8-sig"))  # editors may add a mark
    except (OSError, UnicodeDecodeError) as error:
        said = error.strerror if isinstance(error, OSError) else error
        raise SpecError(f"a panel file must be readable TOML; got {said} at {place}.") from error
    except tomllib.TOMLDecodeError as error:
        raise SpecError(f"{place} must be valid TOML; got {error}. Correct that line.") from error
    unknown = sorted(set(content) - set(_SECTIONS))
    for section, known in _SECTIONS.items():
        found = content.get(section, {})
        if not isinstance(found, dict):
            raise SpecError(f"[{section}] must be a table; got {found!r} in {place}. Write keys.")
        unknown += [f"{section}.{key}" for key in sorted(set(found) - set(known))]
    if unknown:
        tables = "; ".join(f"[{name}] {', '.join(keys)}" for name, keys in _SECTIONS.items())
        raise SpecError(
            f"keys of a panel file must be known; got {', '.join(unknown)} in {place}. Known: "
            f"{tables}."
        )
    reading, panel = dict(content.get("reading", {})), dict(content.get("panel", {}))
    for name in ("columns", "policies"):
        if not isinstance(reading.get(name, {}), dict):
            raise SpecError(
                f"{name} of [reading] must be a table; got {reading[name]!r} in {place}. Write "
                f"[reading.{name}] and keys."
            )
    columns, own = reading.pop("columns", {}), reading.get("fields", ())
    own = own if isinstance(own, list) else ()  # read_prices says what is wrong with others
    strange = sorted(set(columns) - {*PARTS, ASSET, *map(str, own)})
    if strange:
        raise SpecError(
            f"columns of [reading] must be named by what they hold; got {', '.join(strange)} in "
            f"{place}. Known: {', '.join(PARTS)}."
        )
    reading |= columns
    if "calendar" in reading:
        reading["calendar"] = _calendar(place.parent / str(reading["calendar"]))
    if "listing_dates" in panel:
        panel["listing_dates"] = _listing_dates(place.parent / str(panel["listing_dates"]))
    if "limits" in panel:
        panel["limits"] = read_price_limits(place.parent / str(panel["limits"]))
    rules = dict(content.get("universe", {}))
    if "spells" in rules:
        rules["spells"] = place.parent / str(rules["spells"])
    if rules:
        panel["universe"] = UniverseRules(**rules)
    return PanelSettings(reading, panel)


def _calendar(place: Path) -> list[str]:
    try:
        lines = place.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(
            f"a calendar must be a text file of one date a line; got {error} at {place}."
        ) from error
    return [line.strip() for line in lines if line.strip()]


def _listing_dates(place: Path) -> pd.Series:
    try:
        table = pd.read_csv(place, dtype=str)[["instrument", "date"]]
        if table.isna().any(axis=None):
            raise ValueError(f"{int(table.isna().any(axis=1).sum())} rows with an empty cell")
        dates = pd.to_datetime(table["date"], format="ISO8601")
        return pd.Series(dates.to_numpy(), index=pd.Index(table["instrument"], name="asset"))
    except (OSError, ValueError, KeyError) as error:
        raise SpecError(
            f"listing dates must be a CSV of instrument and date; got {type(error).__name__} "
            f"({error}) at {place}."
        ) from error
