"""The drop ledger: what was found in the data, how often, where, and what was done about it.

A panel that silently loses rows cannot be judged, so every step that masks, drops or merely
distrusts a cell adds one finding. The ledger travels as JSON in ``dataset.attrs["ledger"]``.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field

import pandas as pd
import xarray as xr

from nfi_pyro.data.checks.quality_rules import RULES
from nfi_pyro.errors import MAX_PLACES, PanelError

LEDGER_ATTRIBUTE = "ledger"
_COLUMNS = ("rule", "count", "action", "places")
_PLACES_WIDTH = 72


@dataclass(frozen=True)
class Finding:
    """One rule that the data broke, or one reason for which cells were left out.

    Attributes
    ----------
    rule : str
        What was looked for, in words.
    count : int
        How many cells, rows, assets or labels it concerns (the rule says which).
    action : str
        What was done: ``"kept"``, ``"dropped"``, ``"bar masked"``, ``"excluded"``, ...
    places : tuple of str
        At most five places, worst first.
    """

    rule: str
    count: int
    action: str
    places: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.count < 0:
            raise PanelError(
                f"count of a finding must be >= 0; got {self.count} at rule {self.rule!r}. "
                "Count the cells concerned."
            )
        object.__setattr__(self, "places", tuple(self.places)[:MAX_PLACES])


@dataclass(frozen=True)
class DropLedger:
    """Findings in the order in which they were made; immutable, compared by content.

    Attributes
    ----------
    findings : tuple of Finding
        Empty when nothing was found.
    """

    findings: tuple[Finding, ...] = field(default=())

    def add(
        self, rule: str, count: int, action: str, places: Iterable[object] = ()
    ) -> "DropLedger":
        """Return a ledger with one finding more; a count of zero adds nothing.

        Parameters
        ----------
        rule, action : str
            See `Finding`.
        count : int
            Cases found, >= 0.
        places : iterable
            Where, worst first; only the first five are kept.

        Returns
        -------
        DropLedger
            A new ledger; this one does not change.

        Raises
        ------
        PanelError
            When `count` is negative.
        """
        finding = Finding(rule, int(count), action, tuple(str(place) for place in places))
        return DropLedger((*self.findings, finding)) if finding.count else self

    def extend(self, other: "DropLedger") -> "DropLedger":
        """Return this ledger followed by the findings of `other`."""
        return DropLedger(self.findings + other.findings)

    def to_json(self) -> str:
        """Return the findings as a JSON list, readable by `from_json`."""
        return json.dumps([asdict(finding) for finding in self.findings], ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> "DropLedger":
        """Return the ledger that `to_json` wrote.

        Raises
        ------
        PanelError
            When the text is not such a list.
        """
        try:
            findings = tuple(
                Finding(
                    str(entry["rule"]),
                    int(entry["count"]),
                    str(entry["action"]),
                    tuple(str(place) for place in entry["places"]),
                )
                for entry in json.loads(text)
            )
        except (TypeError, KeyError, ValueError) as error:
            raise PanelError(
                f"ledger must be JSON written by DropLedger.to_json; got {text[:40]!r} "
                f"({error}). Rebuild the panel from its prices."
            ) from error
        return cls(findings)

    def to_frame(self) -> pd.DataFrame:
        """Return one row per finding, columns rule, count, action, places (one text)."""
        rows = [(f.rule, f.count, f.action, ", ".join(f.places)) for f in self.findings]
        return pd.DataFrame(rows, columns=list(_COLUMNS))

    def __str__(self) -> str:
        if not self.findings:
            return "no findings"
        rows = [_COLUMNS] + [
            (f.rule, f"{f.count:,}", f.action, _fitting(f.places)) for f in self.findings
        ]
        widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
        lines = []
        for rule, count, action, places in rows:
            line = f"{rule:<{widths[0]}}  {count:>{widths[1]}}  {action:<{widths[2]}}  {places}"
            lines.append(line.rstrip())
        return "\n".join(lines)


@dataclass(frozen=True)
class Inspection:
    """Bars after the policies, and all that was found on the way.

    Attributes
    ----------
    bars : Dataset, dims (date, asset)
        What the policies left; NaN where a bar was masked.
    ledger : DropLedger
        What was found before, then one finding per rule that fired.
    cases : DataFrame
        Every case, worst first within a rule: rule (id), asset ("" for a whole date or the whole
        data), date (NaT for a whole asset), field ("" for the whole bar; for ``calendar_gap`` what
        is wrong with the date), value (float, NaN where the case has no number). At most
        ``cases.attrs["cap"]`` cases a rule; `counts` are complete.
    counts : mapping of str to int
        Cases by rule, in the order of the ledger; only rules that fired.
    missing : DataArray, dims (field, year)
        Share, 0 to 1, of the cells between an asset's first and last close that have no value,
        before any policy; NaN for a year without such cells.
    policies : mapping of str to str
        The policy of every rule.
    """

    bars: xr.Dataset
    ledger: DropLedger
    cases: pd.DataFrame
    counts: Mapping[str, int]
    missing: xr.DataArray
    policies: Mapping[str, str]

    def to_dataset(self) -> xr.Dataset:
        """Return the findings as one dataset, for storage.

        Returns
        -------
        Dataset, dims (finding, case, field, year)
            ``finding_rule``, ``finding_count``, ``finding_action``, ``finding_places`` (finding);
            ``case_rule``, ``case_asset``, ``case_date``, ``case_field``, ``case_value`` (case);
            ``missing`` (field, year). Attributes ``policies`` and ``counts`` (JSON), ``case_cap``.
        """
        findings = self.ledger.to_frame()
        variables: dict[str, object] = {"missing": self.missing}
        for frame, dim in ((findings, "finding"), (self.cases, "case")):
            for name in frame.columns:
                variables[f"{dim}_{name}"] = (dim, frame[name].to_numpy())
        return xr.Dataset(
            variables,
            attrs={
                "policies": json.dumps(dict(self.policies)),
                "counts": json.dumps(dict(self.counts)),
                "case_cap": self.cases.attrs["cap"],
            },
        )

    def describe(self) -> str:
        """Return coverage, findings, missing shares and policies as text for a terminal."""
        dates = pd.DatetimeIndex(self.bars["date"].to_numpy())
        shares = self.missing.mean("year").to_series()
        missing = ", ".join(f"{name} {share:.2%}" for name, share in shares.items())
        return "\n".join(
            [
                f"{self.bars.sizes['asset']:,} assets, {len(dates):,} dates from "
                f"{dates[0]:%Y-%m-%d} to {dates[-1]:%Y-%m-%d}",
                str(self.ledger),
                f"missing inside histories (mean of the years): {missing}",
                f"policies (* where it is not the default)\n{describe_policies(self.policies)}",
            ]
        )


def _fitting(places: tuple[str, ...]) -> str:
    """Return as many places as fit into a terminal's line, the first one in any case."""
    shown = list(places[:1])
    for place in places[1:]:
        if len(", ".join([*shown, place])) > _PLACES_WIDTH:
            break
        shown.append(place)
    text = ", ".join(shown)
    return text + ", ..." if len(shown) < len(places) else text


def describe_policies(policies: Mapping[str, str]) -> str:
    """Return the rules by policy, one line each policy, those that differ from defaults starred."""
    by_policy: dict[str, list[str]] = {}
    for rule, policy in policies.items():
        changed = rule in RULES and policy != RULES[rule].default
        by_policy.setdefault(policy, []).append(rule + "*" * changed)
    return "\n".join(f"{policy:<6}{', '.join(rules)}" for policy, rules in by_policy.items())
