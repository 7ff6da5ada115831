"""What can be wrong with daily bars: one rule each, and what may be done about it.

Nothing is ever filled or repaired. A rule either writes its cases down (``keep``), empties the
cells concerned (``mask``), leaves the assets out (``drop``) or refuses the data (``error``).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from nfi_pyro.errors import SpecError, name_places

KEEP, MASK, DROP, ERROR = "keep", "mask", "drop", "error"
_CELLS = (KEEP, MASK, ERROR)
_BAR = "bar masked"


@dataclass(frozen=True)
class Rule:
    """One rule of the inspection.

    Attributes
    ----------
    id : str
        Its name in policies.
    title : str
        What it counts, in words.
    default : str
        The policy without a choice.
    allowed : tuple of str
        The policies that can be chosen.
    masked : str
        What ``mask`` empties, as the ledger says it; "" where there is nothing to empty.
    why : str
        What it means when the rule fires.
    """

    id: str
    title: str
    default: str
    allowed: tuple[str, ...]
    masked: str
    why: str


_RULES = (
    Rule(
        "duplicates",
        "rows of one date and asset given twice",
        ERROR,
        (ERROR, KEEP, MASK),
        "cell masked",
        "Found while reading: there is no telling which row is right.",
    ),
    Rule(
        "infinite",
        "bars with an infinite value",
        MASK,
        _CELLS,
        _BAR,
        "A division by zero before the data came here.",
    ),
    Rule(
        "nonpositive_price",
        "bars with a price <= 0",
        MASK,
        _CELLS,
        _BAR,
        "Missing prices written as zero, or prices adjusted below zero.",
    ),
    Rule(
        "negative_volume",
        "bars with a volume or amount < 0",
        MASK,
        _CELLS,
        _BAR,
        "An overflow or a placeholder.",
    ),
    Rule(
        "dead_asset",
        "assets without any close",
        DROP,
        (DROP, ERROR),
        "",
        "A symbol without data; nothing can be learnt from it.",
    ),
    Rule(
        "high_below_low",
        "bars whose high is below their low",
        KEEP,
        _CELLS,
        _BAR,
        "Columns exchanged, or fields of different adjustment.",
    ),
    Rule(
        "open_outside_bar",
        "bars whose open is outside low to high",
        KEEP,
        _CELLS,
        _BAR,
        "The bar contradicts itself and does not say which of its numbers is wrong.",
    ),
    Rule(
        "close_outside_bar",
        "bars whose close is outside low to high",
        KEEP,
        _CELLS,
        _BAR,
        "Often a close that is adjusted while the other prices are not.",
    ),
    Rule(
        "scale_jump",
        "one-day close moves by a power of ten",
        KEEP,
        _CELLS,
        _BAR,
        "A slip of units: cents for currency units, lots for shares.",
    ),
    Rule(
        "unadjusted_split",
        "overnight moves that look like a split not adjusted for",
        KEEP,
        _CELLS,
        _BAR,
        "The open stands at a simple ratio of the last close, the new level stays, and trading was "
        "no busier than usual.",
    ),
    Rule(
        "adjustment_base",
        "overnight level shifts that no market move explains",
        KEEP,
        _CELLS,
        _BAR,
        "Prices adjusted to another base date from here on. Beyond the daily price limit of an "
        "A-share this is certain; elsewhere the level halves or doubles at the open, stays, and "
        "trading was no busier than usual.",
    ),
    Rule(
        "jump",
        "one-day close moves beyond +-40%",
        KEEP,
        _CELLS,
        _BAR,
        "Rare in markets, common in bad adjustment. Moves named by the three rules before are not "
        "counted again.",
    ),
    Rule(
        "stale_price",
        "runs of unchanged prices",
        KEEP,
        _CELLS,
        "bars after the first masked",
        "Prices carried forward: five bars or more alike in every price with a volume above zero, "
        "or ten alike in their close.",
    ),
    Rule(
        "zero_volume",
        "bars with a price and no volume",
        KEEP,
        _CELLS,
        _BAR,
        "A suspension written as a bar; such a price cannot be traded at.",
    ),
    Rule(
        "constant_field",
        "fields that never change over a history",
        KEEP,
        _CELLS,
        "field masked",
        "A placeholder instead of data.",
    ),
    Rule(
        "gap",
        "cells without a close inside a history",
        KEEP,
        _CELLS,
        "rest of the bar masked",
        "A suspension, or data that were lost.",
    ),
    Rule(
        "calendar_gap",
        "dates that do not fit the trading calendar",
        KEEP,
        _CELLS,
        "dates masked",
        "Trading days that the prices lack, days without trading, or days on which most assets "
        "are missing.",
    ),
    Rule(
        "late_listing",
        "assets that start after the first date",
        KEEP,
        _CELLS,
        "asset masked",
        "Listed later, or data that begin late.",
    ),
    Rule(
        "early_end",
        "assets that end before the last date",
        KEEP,
        _CELLS,
        "asset masked",
        "Delisted, or data that stop early.",
    ),
    Rule(
        "survivorship",
        "hint of survivorship: hardly any asset ends before the last date",
        KEEP,
        (KEEP, ERROR),
        "",
        "Assets that were delisted seem to be left out, which flatters every backtest.",
    ),
)
RULES: Mapping[str, Rule] = MappingProxyType({rule.id: rule for rule in _RULES})


def resolve_policies(policies: Mapping[str, str] | None) -> dict[str, str]:
    """Return the policy of every rule: the chosen one, or the default of the rule.

    Parameters
    ----------
    policies : mapping of rule id to policy, optional
        Only what departs from the defaults.

    Raises
    ------
    SpecError
        When a rule is unknown, or a policy is not one of those that its rule allows.
    """
    if policies is not None and not isinstance(policies, Mapping):
        raise SpecError(
            f"policies must map rules to policies; got {policies!r}. Say "
            "policies={'jump': 'mask'}."
        )
    chosen = dict(policies or {})
    unknown = [name for name in chosen if name not in RULES]
    if unknown:
        raise SpecError(
            f"policies must name known rules; got {name_places(map(repr, unknown))}. The rules "
            f"are {', '.join(RULES)}."
        )
    for name, policy in chosen.items():
        if policy not in RULES[name].allowed:
            raise SpecError(
                f"policy {name} must be one of {', '.join(RULES[name].allowed)}; got {policy!r}. "
                "Choose one."
            )
    return {name: chosen.get(name, rule.default) for name, rule in RULES.items()}
