"""Transforms in sequence: fitted in order on training dates, saved with the run, then applied."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from nfi_pyro.data.training.column_statistics import FeatureBlocks, require_columns
from nfi_pyro.data.training.cross_section import (
    CrossSectionFill,
    CrossSectionRank,
    CrossSectionRobustZScore,
    CrossSectionZScore,
    Fill,
    ProcessInf,
    require_mask,
)
from nfi_pyro.data.training.transforms import MinMax, RobustZScore, ZScore, require_clip
from nfi_pyro.errors import PanelError, SpecError, name_places


class Transform(Protocol):
    """One fitted step of a chain."""

    @property
    def name(self) -> str:
        """The name under which it is registered."""

    @property
    def keeps_missing(self) -> bool:
        """Whether finite cells stay finite and all others stay unknown."""

    def apply(self, values: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Return `values`, float32 (date, asset, feature), transformed in place."""

    def describe(self) -> str:
        """Return the rule in words."""

    def as_dict(self) -> dict[str, object]:
        """Return plain values for JSON."""


TRANSFORMS: dict[str, Any] = {
    kind.name: kind
    for kind in (
        RobustZScore,
        ZScore,
        MinMax,
        CrossSectionZScore,
        CrossSectionRobustZScore,
        CrossSectionRank,
        Fill,
        CrossSectionFill,
        ProcessInf,
    )
}
"""Name to class; a class has `name`, `options`, `fit_blocks`, `from_dict` and a step's methods."""

DEFAULT_STEPS: tuple[str, ...] = ("robust_zscore",)

Step = str | Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class TransformChain:
    """Transforms that are applied one after the other.

    Whether a cell is known (and an asset has a full window) is judged on what comes out: a chain
    that fills makes unknown cells known.

    Attributes
    ----------
    transforms : tuple of Transform
        In order of application; empty leaves the features as they are.
    features : tuple of str
        Names of the features, in order.
    """

    transforms: tuple[Transform, ...]
    features: tuple[str, ...]

    @classmethod
    def fit(
        cls, steps: Sequence[Step], blocks: FeatureBlocks, features: Sequence[str]
    ) -> "TransformChain":
        """Return the chain fitted on training dates, each step on what the steps before return.

        Parameters
        ----------
        steps : sequence of str or mapping
            A name of `TRANSFORMS`, or a mapping of ``name`` and the options of that transform, as
            in ``{"name": "robust_zscore", "clip": 5.0}``.
        blocks : FeatureBlocks
            Raw features of the training dates, and the mask of the tradable cells.
        features : sequence of str
            Names of the features.

        Raises
        ------
        SpecError
            If a step or an option is unknown or out of range, or the blocks cannot be read twice.
        ShapeError
            If masks and values do not match, or no cell counts.
        PanelError
            If a feature is unknown in every training cell that counts.
        """
        parsed = check_steps(steps)
        names = tuple(str(name) for name in features)
        if iter(blocks) is blocks:
            raise SpecError(
                f"blocks must start again at every iter(); got a {type(blocks).__name__}, which "
                "can be read only once. Use ArrayBlocks, or a class with an __iter__."
            )
        fitted: tuple[Transform, ...] = ()
        for kind, options in parsed:
            before = _AppliedBlocks(blocks, cls(fitted, names)) if fitted else blocks
            fitted = (*fitted, kind.fit_blocks(before, names, **options))
        return cls(fitted, names)

    def apply(self, values: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Return the transformed features of some dates, a new float32 array.

        Parameters
        ----------
        values : ndarray, shape (date, asset, feature)
            Raw features, NaN where unknown; not changed. Any block of dates: each date is
            transformed by itself.
        mask : ndarray of bool, shape (date, asset)
            Tradable cells: those that enter the statistics of their date.

        Returns
        -------
        ndarray, shape (date, asset, feature), float32
            Dimensionless after a scaling step. NaN or infinite where unknown.

        Raises
        ------
        ShapeError
            If the columns are not as many as the features, or the mask does not match.
        """
        require_columns(values, self.features)
        require_mask(values, mask)
        out = np.array(values, dtype=np.float32, order="C")
        for transform in self.transforms:
            out = transform.apply(out, mask)
        return out

    @property
    def keeps_missing(self) -> bool:
        """Whether a cell is known after the chain exactly when it is finite before."""
        return all(step.keeps_missing for step in self.transforms)

    def require_features(self, names: Sequence[object]) -> None:
        """Refuse a panel whose features are not those of the fit, in order.

        Raises
        ------
        PanelError
            Naming the features that are missing or unknown, five of each at most.
        """
        given = tuple(str(name) for name in names)
        if given != self.features:
            missing = sorted(set(self.features) - set(given))
            extra = sorted(set(given) - set(self.features))
            raise PanelError(
                "the panel's features must be those of the fit, in order; missing "
                f"{missing[:5]}, unknown {extra[:5]}"
                f"{'' if missing or extra else ', the same in another order'}. Build the panel "
                "with the run's features, or select them: panel.sel(feature=[...])."
            )

    def describe(self) -> str:
        """Return one line per step: its name and its rule in words."""
        if not self.transforms:
            return "features as they are"
        return "\n".join(f"{step.name}: {step.describe()}" for step in self.transforms)

    def as_dict(self) -> dict[str, object]:
        """Return plain values; floats survive JSON exactly."""
        return {
            "features": list(self.features),
            "steps": [{"name": step.name, **step.as_dict()} for step in self.transforms],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "TransformChain":
        """Return the chain that `as_dict` wrote.

        Raises
        ------
        SpecError
            If a step is unknown or a part is missing: another version wrote it.
        """
        transforms = []
        try:
            for step in values["steps"]:
                state = {key: value for key, value in step.items() if key != "name"}
                transforms.append(_kind(step["name"]).from_dict(state))
            return cls(tuple(transforms), tuple(values["features"]))
        except (KeyError, TypeError) as error:
            raise SpecError(
                f"stored transforms must have steps and features; got {type(error).__name__} "
                f"({error}). They were altered, or another version wrote them."
            ) from error


def check_steps(steps: Sequence[Step]) -> list[tuple[Any, dict[str, Any]]]:
    """Return class and options of every step; the check needs no data.

    Raises
    ------
    SpecError
        If `steps` is not a sequence, a step or an option is unknown, or a value out of range.
    """
    if isinstance(steps, str | Mapping) or not isinstance(steps, Sequence):
        raise SpecError(f"steps must be a sequence of steps; got {steps!r}. Write it as a list.")
    parsed = []
    for step in steps:
        if not isinstance(step, str) and not (isinstance(step, Mapping) and "name" in step):
            raise SpecError(
                f"a step must be a name or a mapping with a name; got {step!r}. Write "
                "'robust_zscore' or {'name': 'robust_zscore', 'clip': 5.0}."
            )
        name = step if isinstance(step, str) else step["name"]
        options = {} if isinstance(step, str) else {k: v for k, v in step.items() if k != "name"}
        kind = _kind(name)
        unknown = sorted(set(options) - set(kind.options))
        if unknown:
            raise SpecError(
                f"options of {name} must be among {list(kind.options)}; got "
                f"{name_places(unknown)}. Remove the others."
            )
        if "clip" in options:
            require_clip(options["clip"], name)
        elif options:
            kind(**options)  # nothing is fitted: the class itself checks
        parsed.append((kind, options))
    return parsed


def _kind(name: object) -> Any:
    if not isinstance(name, str) or name not in TRANSFORMS:
        raise SpecError(
            f"a transform must be one of {', '.join(TRANSFORMS)}; got {name!r}. Choose one."
        )
    return TRANSFORMS[name]


@dataclass(frozen=True, eq=False)
class _AppliedBlocks:
    """Blocks as a chain returns them, computed anew at every reading."""

    blocks: FeatureBlocks
    chain: TransformChain

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for values, mask in self.blocks:
            yield self.chain.apply(values, mask), mask
