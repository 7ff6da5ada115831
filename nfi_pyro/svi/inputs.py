"""What a model needs of a panel, refused before training with the reason and the place."""

import warnings
from typing import Any

import numpy as np

from nfi_pyro.data.panel import Panel, cells
from nfi_pyro.data.training.windows import PanelWindows
from nfi_pyro.errors import PanelError, name_places

_LARGE_RETURN = 0.3  # of one day: ten times the standard deviation of a volatile stock
_NULL = 1e-10


class ReturnScaleWarning(UserWarning):
    """Returns are so large that they may be in percent."""


class MissingExposureWarning(UserWarning):
    """Tradable cells do not enter because an exposure is not known."""


def given_names(model: Any, panel: Panel) -> list[str]:
    """Return the names of the exposures that the model is given, or of the panel's features."""
    if model.uses_exposures and "exposures" in panel:
        return [str(name) for name in panel["exposures"]["factor"].values]
    return [str(name) for name in panel["feature"].values]


def factor_labels(model: Any, panel: Panel, n_factors: int) -> list[str]:
    """Return the labels of a law's factors: ``market`` and the exposures', or z0, z1, ..."""
    if model.uses_exposures and n_factors:
        return ["market", *given_names(model, panel)]
    return [f"z{k}" for k in range(n_factors)]


def check_sizes(model: Any, panel: Panel) -> None:
    """Refuse a panel with another number of features or exposures than the spec.

    Raises
    ------
    PanelError
        Also when a model of given exposures has at least as many of them as there are assets.
    """
    found = len(given_names(model, panel))
    field = "n_exposures" if model.uses_exposures else "n_features"
    what = "exposures" if model.uses_exposures else "features"
    wanted = getattr(model.spec, field)
    if wanted != found:
        raise PanelError(
            f"the panel must have spec.{field} = {wanted} {what}; got {found}. Set {field}, or "
            "build the panel with the spec's."
        )
    n_factors = found + 1 if model.uses_exposures else getattr(model.spec, "n_factors", 0)
    if n_factors >= panel.sizes["asset"]:
        raise PanelError(
            f"a panel must have more assets than the model has factors; got "
            f"{panel.sizes['asset']} assets and {n_factors} factors"
            f"{' (intercept included)' if model.uses_exposures else ''}. Use fewer "
            f"{'exposures: `nfi synthesise`' if model.uses_exposures else 'factors'}, or more "
            "assets."
        )


def check_known(panel: Panel, train: slice) -> None:
    """Refuse exposures that are infinite or unknown in training, and say where others are missing.

    Raises
    ------
    PanelError
        Names the columns or the places.
    """
    if "exposures" not in panel:
        return
    values = panel["exposures"].to_numpy()
    tradable = panel["tradable"].to_numpy()
    names = panel["exposures"]["factor"].values
    infinite = tradable & np.isinf(values).any(axis=2)
    if infinite.any():
        raise PanelError(
            f"exposures must be finite or NaN (not known); got {int(infinite.sum())} infinite "
            f"cells at {name_places(cells(panel, infinite))}. Mask them, or clip them on purpose."
        )
    known = np.isfinite(values) & tradable[..., None]
    never = ~known[train].any(axis=(0, 1))
    if never.any():
        raise PanelError(
            "every exposure must be known somewhere in training; got none at "
            f"{name_places(names[never])}. Leave it out, or choose other training dates."
        )
    missing = tradable & ~known.all(axis=2)
    if missing.any():
        warnings.warn(
            f"{int(missing.sum())} of {int(tradable.sum())} tradable cells lack an exposure and do "
            f"not enter, at {name_places(cells(panel, missing))}.",
            MissingExposureWarning,
            stacklevel=3,
        )


def check_exposures(windows: PanelWindows, train: slice, names: list[str]) -> None:
    """Refuse exposures that do not vary, or are linear combinations of each other.

    Judged on the training cells that enter, each date centred: what is the same for all assets of
    a date is the intercept's.

    Raises
    ------
    PanelError
        Names the columns.
    """
    size = len(names)
    scatter, square, count = np.zeros((size, size)), np.zeros(size), 0
    for start, stop in windows.blocks(train, 32):
        batch = windows.batch(start, stop)
        mask = batch.tradable.cpu().numpy()[..., None]
        values = np.where(mask, batch.given_exposures.cpu().numpy().astype(np.float64), 0.0)
        present = mask.sum(1, keepdims=True)
        centred = np.where(
            mask, values - values.sum(1, keepdims=True) / np.maximum(present, 1), 0.0
        )
        rows = centred.reshape(-1, centred.shape[-1])
        scatter = scatter + rows.T @ rows
        square = square + np.square(values).sum((0, 1))
        count += int(present.sum())
    spread = np.sqrt(np.diagonal(scatter) / max(count, 1))
    level = np.sqrt(square / max(count, 1))
    still = spread <= 1e-6 * np.maximum(level, 1e-12)
    if still.any():
        raise PanelError(
            "exposures must vary over the assets of a training date; got columns that do not: "
            f"{name_places(np.asarray(names)[still])}. Leave them out: an intercept is added "
            "where one is needed."
        )
    values, vectors = np.linalg.eigh(scatter / np.outer(spread, spread) / max(count, 1))
    null = np.abs(vectors[:, values <= _NULL * values[-1]])
    if null.size:
        part = (null > 0.01 * null.max(axis=0)).any(axis=1)
        raise PanelError(
            "exposures must not be linear combinations of each other; got a relation among "
            f"{name_places(np.asarray(names)[part], 8)}. Drop one of them, or use the scores of "
            "`nfi synthesise`."
        )


def warn_of_percent(return_scale: float, label: dict[str, Any]) -> None:
    """Warn when the training standard deviation looks like percent instead of decimals."""
    horizon = max(1, int(label.get("horizon", 1)))
    if label.get("unit") == "return" and return_scale > _LARGE_RETURN * horizon**0.5:
        warnings.warn(
            f"the training returns have a standard deviation of {return_scale:.4g} over "
            f"{horizon} trading days, that is {return_scale:.0%}: are they in percent? Returns "
            "are decimals here (0.01 is 1 %); divide them by 100.",
            ReturnScaleWarning,
            stacklevel=3,
        )
