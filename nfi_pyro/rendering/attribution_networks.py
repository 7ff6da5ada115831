"""Sections of an attribution page on what networks look at: heat maps, features and lags."""

import numpy as np
import xarray as xr

from nfi_pyro.attribution.results.explanations import (
    FactorHeatMap,
    FeatureAttribution,
    FeatureRelevance,
    HeatMapSanity,
)
from nfi_pyro.dims import CHAIN, DATE, FACTOR, FEATURE, LAG
from nfi_pyro.rendering.attribution_contents import AttributionContents
from nfi_pyro.rendering.attribution_selection import (
    MOST_LISTED,
    NONE,
    Chosen,
    choose,
    common_digits,
    counted,
    date_blocks,
    evenly,
    mean_and_most,
    mean_over_draws,
    missing_dates,
    over_fits,
    scale_of,
    uncovered_text,
)
from nfi_pyro.rendering.figures.attribution_bars import Words, lane_bars
from nfi_pyro.rendering.figures.attribution_maps import CellMap, dated_map, lag_map
from nfi_pyro.rendering.formatting import count, number, percent, shortened
from nfi_pyro.rendering.page import Drawing, Section, Table

TARGETS = {"mean": "expected return", "standard_deviation": "standard deviation"}
_CHANGED, _SAME = 0.5, 0.8
_ENOUGH = 40  # cells: below, a rank correlation of 0.5 is no surprise


def heat_maps(contents: AttributionContents) -> Section | None:
    """Return Grad-CAM maps of mean and risk side by side, and what random weights do to them."""
    found = [one for one in (contents.heat_mean, contents.heat_risk) if one is not None]
    if not found and contents.sanity is None:
        return None
    comparable = all(one.comparable for one in found)
    several = any(CHAIN in one.heat.dims for one in found)
    covered = uncovered_text(found[0].uncovered) if found else ""
    tables = () if contents.sanity is None else (_sanity_table(contents.sanity),)
    words = () if contents.sanity is None else (_say_sanity(contents.sanity),)
    return Section(
        "What the network looks at",
        "Heat maps",
        "heat-maps",
        (
            "Grad-CAM goes to the layer of the network that still has a factor axis and asks which "
            "factors move the book's number on a date. A cell is in basis points per label horizon "
            "where labels are returns.",
            *words,
            *((covered,) if covered else ()),
        ),
        figures=_heat_drawings(found, comparable=comparable) if found else (),
        tables=tables,
        notes=(
            "A map is no decomposition: its cells do not add up to the expected return or to the "
            "standard deviation. What enters by a constant is in no cell.",
            *(
                ("The maps are of the first fit: learned factors of other fits are not the same.",)
                if several and not comparable
                else ()
            ),
        ),
    )


def _heat_drawings(found: list[FactorHeatMap], *, comparable: bool) -> tuple[Drawing, ...]:
    """Return one map each, on the same rows."""
    values = [
        over_fits(one.heat, comparable=comparable).transpose(FACTOR, DATE).values for one in found
    ]
    chosen = choose(found[0].heat[FACTOR].values, _joint_score([_sizes(one) for one in values]))
    drawings = []
    for one, cells in zip(found, values, strict=True):
        scale = scale_of(one.heat)
        drawn, days, length = date_blocks(
            scale.factor * chosen.collect(cells), one.heat[DATE].values
        )
        target = TARGETS.get(one.target, one.target)
        kind = (
            "Negative values were set to 0: a pale cell is no driver, or one that pulls down."
            if one.rectified
            else "Blue raises it, orange lowers it."
        )
        gaps = missing_dates(one.heat)
        drawings.append(
            Drawing(
                dated_map(
                    CellMap(
                        chosen.names, days, drawn, f"fig-heat-{one.target.replace('_', '-')}",
                        f"Heat map of what moves the {target}, factor by date",
                        f"{target.capitalize()} ({scale.unit} per label horizon)",
                        unsigned=one.rectified,
                    )
                ),
                f"Which factors move the book's {target}. {kind} Colours end at the 98% quantile "
                f"of sizes.{chosen.said('factors')}"
                + (f" Each column is the mean of {length} dates." if length > 1 else "")
                + (f" Grey: no law, on {counted(gaps, 'date')}." if gaps else ""),
            )
        )  # fmt: skip
    return tuple(drawings)


def _sizes(values: np.ndarray) -> np.ndarray:
    """Return the mean size by row (row, column), NaN left out and 0 where there is nothing else."""
    known = np.isfinite(values)
    total = np.where(known, np.abs(values), 0.0).sum(axis=1)
    sizes: np.ndarray = total / np.maximum(known.sum(axis=1), 1)
    return sizes


def _joint_score(sizes: list[np.ndarray]) -> np.ndarray:
    """Return one ranking of rows for several maps, each in shares of its own largest row."""
    scores = [size / (size.max(initial=0.0) or 1.0) for size in sizes]
    joint: np.ndarray = np.sum(scores, axis=0)
    return joint


def _sanity_table(found: HeatMapSanity) -> Table:
    """Return correlations with the map of a network whose layers are more and more random."""
    values = found.correlation
    names = [str(name) for name in values["layer"].values]
    mean = mean_over_draws(values).values
    several = values.size > len(names)
    rows = []
    for place in evenly(len(names), MOST_LISTED):
        row = [names[place], number(mean[place], 2)]
        if several:
            own = values.isel(layer=place).values.ravel()
            known = own[np.isfinite(own)]
            ends = (known.min(), known.max()) if known.size else (np.nan, np.nan)
            row.append(f"{number(ends[0], 2)} to {number(ends[1], 2)}" if known.size else "n/a")
        rows.append(tuple(row))
    fewer = f" {len(rows)} of {len(names)} layers." if len(rows) < len(names) else ""
    return Table(
        f"Spearman correlation with the fit's own map of the {TARGETS.get(found.target, '')}, once "
        "all layers from the output down to this one have random weights; "
        f"{count(found.n_cells)} cells, mean over draws, 1 is the same map.{fewer}",
        ("Random down to", "Correlation", *(("Range over draws",) if several else ())),
        tuple(rows),
    )


def _say_sanity(found: HeatMapSanity) -> str:
    """Return in one sentence what the correlations mean."""
    if found.n_cells < _ENOUGH:
        return (
            f"The test with random weights has {count(found.n_cells)} cells, too few to say "
            "whether the map is about what the network learned."
        )
    last = float(mean_over_draws(found.correlation).values[-1])
    if not np.isfinite(last):
        return (
            "The test with random weights says nothing here: with all layers random the map is "
            "constant, or the fit's own map is."
        )
    shown = f"With all layers random the map correlates by {number(last, 2)} with the fit's map"
    if abs(last) < _CHANGED:
        return f"{shown}: the map is about what the network learned."
    if last > _SAME:
        return (
            f"{shown}: it says more about the architecture and the book's exposures than about "
            "what the network learned."
        )
    return f"{shown}: only part of it is about what the network learned."


def features(contents: AttributionContents) -> Section | None:
    """Return which features, at which lags, the book's number comes from, by two methods."""
    paths, passed = contents.features, contents.relevance
    if paths is None and passed is None:
        return None
    maps: dict[str, xr.DataArray] = {}
    if paths is not None:
        maps["gradients"] = paths.attribution
    if passed is not None:
        maps["relevance"] = passed.relevance
    means = {name: _over_dates(values) for name, values in maps.items()}
    lags = [_sizes(_over_dates(values, sizes=True).values) for values in maps.values()]
    first = next(iter(means.values()))
    chosen = choose(first[FEATURE].values, _joint_score(lags))
    covered = uncovered_text((paths or passed).uncovered)  # type: ignore[union-attr]
    return Section(
        "Features and lags",
        "Features",
        "features",
        (
            *_say_features(paths, passed),
            "The maps show means over dates, and over fits where there are several, with their "
            "signs: what helps on one date and hurts on another is near 0. The table has the mean "
            "size beside it.",
            *((covered,) if covered else ()),
        ),
        figures=tuple(
            _feature_drawing(name, mean, chosen, maps[name]) for name, mean in means.items()
        ),
        tables=(_feature_table(maps, chosen), _check_table(paths, passed)),
        notes=_feature_notes(paths, passed),
    )


def _over_dates(values: xr.DataArray, *, sizes: bool = False) -> xr.DataArray:
    """Return the mean over fits and dates, (feature, lag); of sizes by date where asked for."""
    one = mean_over_draws(values)
    one = abs(one) if sizes else one
    return one.mean(DATE, keep_attrs=True).transpose(FEATURE, LAG)


def _say_features(
    paths: FeatureAttribution | None, passed: FeatureRelevance | None
) -> tuple[str, ...]:
    """Return what each method splits."""
    texts = []
    if paths is not None:
        target = TARGETS.get(paths.target, paths.target)
        scale = scale_of(paths.attribution)
        gap = scale.factor * float((paths.value - paths.baseline_value).mean())
        start = "the date's median" if paths.baseline == "median" else "0"
        texts.append(
            f"Integrated gradients split the book's {target}, less its value with all features at "
            f"{start}: on average "
            f"{number(gap, 2, signed=True)} {scale.unit} per label horizon. They ask what a "
            "feature's distance from the baseline adds."
        )
    if passed is not None:
        scale = scale_of(passed.relevance)
        total = scale.factor * float(passed.value.mean())
        texts.append(
            "Layer-wise relevance hands the book's expected return itself, on average "
            f"{number(total, 2, signed=True)} {scale.unit}, back through the network, without a "
            "baseline. It says what was passed on, not what a change would do. By size "
            f"{percent(float(passed.bias_share.mean()), 1)} of it goes to constants of the "
            "network, which no feature explains."
        )
    if paths is not None and passed is not None:
        texts.append("The two answer different questions, and need not agree.")
    return tuple(texts)


def _feature_drawing(
    name: str, mean: xr.DataArray, chosen: Chosen, values: xr.DataArray
) -> Drawing:
    """Return one method's map of features by lag, or bars where there is one lag."""
    title = {"gradients": "Integrated gradients", "relevance": "Layer-wise relevance"}[name]
    scale = scale_of(values)
    cells = scale.factor * chosen.collect(mean.values)
    unit = f"{scale.unit} per label horizon"
    said = f"{title}, mean over {counted(values.sizes[DATE], 'date')}.{chosen.said('features')}"
    if cells.shape[1] == 1:
        words = Words(f"fig-{name}", f"Bar chart of {title.lower()}", unit, "Feature")
        return Drawing(lane_bars(chosen.names, {title: cells[:, 0]}, words=words), said)
    drawn = lag_map(
        CellMap(
            chosen.names, mean[LAG].values, cells, f"fig-{name}",
            f"Heat map of {title.lower()}, feature by lag", unit,
        )
    )  # fmt: skip
    return Drawing(
        drawn,
        f"{said} Lag 0 is the signal date. Blue raises the book's number, orange lowers it; "
        "colours end at the 98% quantile of sizes.",
    )


def _feature_table(maps: dict[str, xr.DataArray], chosen: Chosen) -> Table:
    """Return the largest features: signed mean and mean size of the sum over lags, top lag."""
    columns: dict[str, tuple[str, ...]] = {}
    for name, values in maps.items():
        short = {"gradients": "Gradients", "relevance": "Relevance"}[name]
        scale = scale_of(values)
        by_date = scale.factor * mean_over_draws(values).sum(LAG, skipna=False)
        rows = chosen.collect(by_date.transpose(FEATURE, DATE).values)
        signed, size = (
            xr.DataArray(part, dims=("row", DATE)).mean(DATE).values for part in (rows, abs(rows))
        )
        digits = common_digits(size)
        lag = _over_dates(values, sizes=True)
        top = lag[LAG].values[lag.fillna(0.0).values.argmax(axis=1)]
        columns[f"{short} ({scale.unit})"] = tuple(number(v, digits, signed=True) for v in signed)
        columns[f"{short}, size ({scale.unit})"] = tuple(number(v, digits) for v in size)
        if values.sizes[LAG] > 1:
            columns[f"{short}, top lag"] = tuple(chosen.cells([str(value) for value in top]))
    return Table(
        "Sum over lags by feature, per label horizon: mean over dates with its sign, and mean size "
        "over dates. Top lag: where the size is largest.",
        ("Feature", *columns),
        tuple(zip((shortened(name, 40) for name in chosen.names), *columns.values(), strict=True)),
    )


def _check_table(paths: FeatureAttribution | None, passed: FeatureRelevance | None) -> Table:
    """Return how far the sums are from what they should add up to, and on how many dates."""
    rows = []
    if paths is not None:
        rows.append(_check("Integrated gradients", paths.completeness_error, paths.complete))
    if passed is not None:
        rows.append(_check("Layer-wise relevance", passed.conservation_error, passed.conserved))
    shares = []
    for row in rows:
        share = passed is not None and row[0].startswith("Layer")
        shares.append(percent(float(passed.bias_share.mean()), 1) if share and passed else NONE)
    return Table(
        "Whether the parts add up: the gap in percent of the sum of their sizes, and on how many "
        "dates it is small enough. Constants: share that biases of the network get and no feature "
        "explains.",
        ("Method", "Mean gap", "Largest gap", "Dates that add up", "Constants"),
        tuple((*row, share) for row, share in zip(rows, shares, strict=True)),
    )


def _check(name: str, error: xr.DataArray, fine: xr.DataArray) -> tuple[str, ...]:
    """Return the gaps of a method; every fit has to be fine on a date."""
    mean, most = mean_and_most(error)
    others = [dim for dim in fine.dims if dim != DATE]
    good = int(fine.all(others).sum())
    return name, percent(mean, 2), percent(most, 2), f"{count(good)} of {count(fine.sizes[DATE])}"


def _feature_notes(
    paths: FeatureAttribution | None, passed: FeatureRelevance | None
) -> tuple[str, ...]:
    """Return definitions, and what is missing."""
    notes = []
    if paths is not None:
        gaps = missing_dates(paths.attribution)
        notes.append(
            f"Integrated gradients add up on a date where the gap is below "
            f"{percent(paths.tolerance, 1)}; {int(paths.nodes.max())} nodes at most."
            + (f" No value on {counted(gaps, 'date')}." if gaps else "")
        )
        how = {"moves": "moves with the features", "held": "is held"}.get(paths.prior, paths.prior)
        notes.append(f"On the way from the baseline the factors' prior {how}, where it has one.")
    if passed is not None:
        gaps = missing_dates(passed.relevance)
        notes.append(
            f"Relevance adds up on a date where the gap is below 1%. Rule: {passed.rule}."
            + (f" No value on {counted(gaps, 'date')}." if gaps else "")
        )
    return tuple(notes)
