"""What a panel is made of: features, label, universe; checked, frozen, stored with the panel."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nfi_pyro.data.labels import KINDS, PRICE_FIELDS, Benchmark
from nfi_pyro.data.market.price_limits import PriceLimitTable
from nfi_pyro.data.market.universe import UniverseRules
from nfi_pyro.errors import SpecError

MISSING_POLICIES = ("exclude", "median")


@dataclass(frozen=True, kw_only=True)
class PanelSpec:
    """Options of `build_panel`.

    Attributes
    ----------
    features, compat : None, str or sequence of str
        See `subset` and `compat` of `alpha158`.
    start_lag, horizon : int
        Of the label, in trading days; see `forward_return`.
    price, kind, benchmark
        Of the label; see `forward_return`. Means, industries and ranks are over the tradable
        assets of the date; a benchmark is prices by date or the name of an asset.
    max_abs_return : float, optional
        Raw returns beyond it, in absolute terms, count as not observed (NaN): bad adjustments.
    missing : "exclude" or "median"
        What happens to an otherwise tradable cell with an undefined feature: it leaves the
        universe, or the feature takes the median of that date over the tradable assets that
        have it (known at the close) and the cell leaves only where no asset has it.
    min_assets : int
        Dates with fewer tradable assets have an empty cross-section instead.
    universe : UniverseRules
    prices, limits, listing_dates
        For price limits and ages; see `trading_masks`.
    """

    features: Sequence[str] | str | None = None
    compat: str | None = None
    start_lag: int = 1
    horizon: int = 1
    price: str = "close"
    kind: str = "raw"
    benchmark: Benchmark | None = None
    max_abs_return: float | None = None
    missing: str = "exclude"
    min_assets: int = 2
    universe: UniverseRules = field(default_factory=UniverseRules)
    prices: str = "adjusted"
    limits: PriceLimitTable | None = None
    listing_dates: pd.Series | None = None

    def __post_init__(self) -> None:
        for name, least in (("start_lag", 0), ("horizon", 1), ("min_assets", 2)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
                raise SpecError(
                    f"{name} must be an integer >= {least}; got {value!r}. Write a number."
                )
        limit = self.max_abs_return
        number = isinstance(limit, int | float | np.number) and not isinstance(limit, bool)
        if limit is not None and not (number and limit > 0):
            raise SpecError(
                f"max_abs_return must be > 0; got {limit!r}. It is decimal: 0.3 is 30 percent."
            )
        if not isinstance(self.universe, UniverseRules):
            raise SpecError(
                f"universe must be UniverseRules; got {type(self.universe).__name__}. Say "
                "UniverseRules(min_age=60)."
            )
        if not isinstance(self.features, str | Sequence | None):
            raise SpecError(f"features must be names; got {self.features!r}. Write a list.")
        for name, known in (
            ("missing", MISSING_POLICIES),
            ("kind", KINDS),
            ("price", PRICE_FIELDS),
        ):
            if getattr(self, name) not in known:
                raise SpecError(
                    f"{name} must be one of {tuple(known)}; got {getattr(self, name)!r}. "
                    "Choose one."
                )

    def with_options(self, options: dict[str, Any]) -> "PanelSpec":
        """Return the spec with some fields replaced.

        Raises
        ------
        SpecError
            If a name is unknown or a value out of range.
        """
        known = [item.name for item in fields(self)]
        unknown = sorted(set(options) - set(known))
        if unknown:
            raise SpecError(
                f"options of a panel must be among {', '.join(known)}; got {', '.join(unknown)}. "
                "Correct the names."
            )
        return replace(self, **options)

    def to_json(self) -> str:
        """Return the options that differ from the defaults, as a panel's attribute ``spec``.

        Data objects (a benchmark series, spells, listing dates, a table of limits) are named by
        their type: they are not stored.
        """
        plain = _differing(self, PanelSpec())
        rules = _differing(self.universe, UniverseRules())
        plain.pop("universe", None)
        if rules:
            plain["universe"] = rules
        return json.dumps(plain, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str, **objects: Any) -> "PanelSpec":
        """Return the spec that `to_json` wrote.

        Parameters
        ----------
        text : str
        **objects
            Data objects that were not stored, and anything else to change.

        Raises
        ------
        SpecError
            If a data object that the panel was built with is not given, or the text is foreign.
        """
        try:
            stored = json.loads(text)
            rules = UniverseRules(**stored.pop("universe", {}))
        except (TypeError, ValueError, AttributeError) as error:
            raise SpecError(
                f"the stored options of a panel must be JSON of PanelSpec; got {text[:40]!r} "
                f"({error}). Write the panel again."
            ) from error
        stored["universe"] = rules
        stored |= objects
        absent = [name for name, value in stored.items() if _is_object(value)]
        given = {item.name: getattr(stored["universe"], item.name) for item in fields(rules)}
        absent += [f"universe.{name}" for name, value in given.items() if _is_object(value)]
        if absent:
            raise SpecError(
                f"data objects that a panel was built with must be given again; got none for "
                f"{', '.join(absent)}. Pass them as options."
            )
        return cls().with_options(stored)


def _differing(options: Any, default: Any) -> dict[str, Any]:
    """Return the plain values of the fields that differ from the default's."""
    ours, theirs = _values(options), _values(default)
    return {name: value for name, value in ours.items() if value != theirs[name]}


def _values(options: Any) -> dict[str, Any]:
    return {item.name: _plain(getattr(options, item.name)) for item in fields(options)}


def _is_object(value: Any) -> bool:
    return isinstance(value, str) and value.startswith("<") and value.endswith(">")


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list | tuple):
        return [str(entry) for entry in value]
    return f"<{type(value).__name__}>"
