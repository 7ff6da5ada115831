"""A fitted probabilistic PCA: posterior, evidence, and how it is stored."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from nfi_pyro.dims import ASSET, DATE, FACTOR, FEATURE
from nfi_pyro.exposures.linear_gaussian import LinearGaussian, row_posterior
from nfi_pyro.exposures.rows import check_rows, date_rows, fix_signs, match_features

OTHER_FACTOR = "other_factor"


@dataclass(frozen=True)
class PPCAFit:
    """A fitted ``x = W z + center + noise`` with ``z ~ N(0, I)`` and ``noise ~ N(0, s2 I)``.

    Attributes
    ----------
    method : {"closed_form", "em", "svi"}
    loadings : DataArray, dims (feature, factor)
        W in canonical form: orthogonal columns, longest first, largest loading in modulus
        positive. The likelihood fixes W up to a rotation only.
    center : DataArray, dims (feature,)
    noise_variance : float
        s2, units of the features squared.
    log_likelihood : float
        Nats of all observed training entries.
    n_rows, n_entries : int
        Rows and observed entries behind the fit.
    n_dropped : int
        Cells of the mask left out: an entry is missing (closed form), or all are.
    history : ndarray, shape (step,)
        Log-likelihood before each EM step (never falls), or the ELBO of each SVI step in nats per
        row; the log-likelihood alone for the closed form.
    converged : bool
    collinear_features : tuple of str
        Exact linear relations between features; filled by the closed form only.
    train : tuple of str
        First and last date of the fit.
    """

    method: str
    loadings: xr.DataArray
    center: xr.DataArray
    noise_variance: float
    log_likelihood: float
    n_rows: int
    n_entries: int
    n_dropped: int
    history: np.ndarray
    converged: bool
    collinear_features: tuple[str, ...]
    train: tuple[str, str]

    @property
    def model(self) -> LinearGaussian:
        """The parameters as plain arrays."""
        return LinearGaussian(self.loadings.to_numpy(), self.center.to_numpy(), self.noise_variance)

    @property
    def n_parameters(self) -> int:
        """Free parameters: W less a rotation, centre and s2."""
        n_features, n_factors = self.loadings.shape
        return n_features * n_factors - n_factors * (n_factors - 1) // 2 + n_features + 1

    @property
    def bic(self) -> float:
        """``-2 log L + n_parameters log n_rows``: smaller is better (Schwarz 1978).

        Rows count as independent, which those of one asset on neighbouring dates are not: BIC
        then allows too many factors, and log-likelihood on later dates is the safer guide.
        """
        return -2.0 * self.log_likelihood + self.n_parameters * math.log(self.n_rows)

    def apply(self, features: xr.DataArray, mask: xr.DataArray | None = None) -> xr.DataArray:
        """Return the posterior mean of z as exposures, (date, asset, factor).

        float64, in prior standard deviations; NaN outside the mask and where every entry is
        missing. See `posterior` for arguments and errors.
        """
        means, *_ = self._rows(features, mask, ("mean",))
        coords = self._coords(features, FACTOR)
        attrs = {"source": f"ppca {self.method}", "train": list(self.train)}
        return xr.DataArray(means, coords, (DATE, ASSET, FACTOR), "exposures", attrs)

    def posterior(self, features: xr.DataArray, mask: xr.DataArray | None = None) -> xr.Dataset:
        """Return the law of z given each row's observed entries, which is Gaussian.

        Parameters
        ----------
        features : DataArray, dims (date, asset, feature)
            The features of the fit, in its order. NaN = missing.
        mask : DataArray of bool, dims (date, asset), optional
            Cells that count; all by default.

        Returns
        -------
        Dataset
            ``mean`` (date, asset, factor) and ``covariance`` (date, asset, factor,
            other_factor); NaN outside the mask and where every entry is missing.

        Raises
        ------
        PanelError
            If the features are not those of the fit, or infinite in the mask.
        """
        mean, covariance = self._rows(features, mask, ("mean", "covariance"))
        coords = self._coords(features, FACTOR)
        coords[OTHER_FACTOR] = coords[FACTOR]
        lead = (DATE, ASSET, FACTOR)
        return xr.Dataset(
            {"mean": (lead, mean), "covariance": ((*lead, OTHER_FACTOR), covariance)},
            coords,
            {"source": f"ppca {self.method}", "train": list(self.train)},
        )

    def score(self, features: xr.DataArray, mask: xr.DataArray | None = None) -> xr.DataArray:
        """Return the log-likelihood of each row's observed entries, (date, asset), nats.

        It equals the ELBO at the exact posterior. NaN outside the mask and where every entry is
        missing. See `posterior` for arguments and errors.
        """
        (evidence,) = self._rows(features, mask, ("log_likelihood",))
        coords = self._coords(features)
        return xr.DataArray(evidence, coords, (DATE, ASSET), "log_likelihood")

    def _rows(
        self, features: xr.DataArray, mask: xr.DataArray | None, wanted: tuple[str, ...]
    ) -> list[np.ndarray]:
        """Return parts of the posterior of every cell, NaN where there is none."""
        check_rows(features, mask)
        match_features(features, self.center[FEATURE].to_numpy())
        size = self.loadings.sizes[FACTOR]
        tails = {"mean": (size,), "covariance": (size, size), "log_likelihood": ()}
        out = [np.full((*features.shape[:2], *tails[name]), np.nan) for name in wanted]
        model = self.model
        for rows in date_rows(features, mask, slice(0, features.shape[0]), complete=False):
            found = row_posterior(model, rows.values)
            for name, values in zip(wanted, out, strict=True):
                values[rows.position, rows.columns] = getattr(found, name)
        return out

    def _coords(self, features: xr.DataArray, *more: str) -> dict[str, Any]:
        coords = {dim: features[dim].to_numpy() for dim in (DATE, ASSET)}
        return coords | {dim: self.loadings[dim].to_numpy() for dim in more}

    def as_dict(self) -> dict[str, np.ndarray]:
        """Return arrays only, fit for ``numpy.savez``; nothing in them needs pickle."""
        arrays = {name: np.array(getattr(self, name)) for name in (*_PLAIN, *_TEXTS)}
        for name in _TEXTS:
            arrays[name] = arrays[name].astype(str)
        arrays |= {name: self.loadings[name].to_numpy().astype(str) for name in (FEATURE, FACTOR)}
        return arrays | {
            "loadings": self.loadings.to_numpy(),
            "center": self.center.to_numpy(),
            "history": self.history,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "PPCAFit":
        """Return the fit that `as_dict` wrote."""
        plain: dict[str, Any] = {name: values[name].item() for name in _PLAIN}
        texts: dict[str, Any] = {name: tuple(values[name].tolist()) for name in _TEXTS}
        labelled = label_parameters(
            values["loadings"],
            values["center"],
            values[FEATURE].tolist(),
            values[FACTOR].tolist(),
        )
        return cls(
            loadings=labelled[0],
            center=labelled[1],
            history=np.asarray(values["history"]),
            **plain,
            **texts,
        )


_PLAIN = (
    *("method", "noise_variance", "log_likelihood"),
    *("n_rows", "n_entries", "n_dropped", "converged"),
)
_TEXTS = ("collinear_features", "train")


def canonical_loadings(loadings: np.ndarray) -> np.ndarray:
    """Return W rotated to orthogonal columns, longest first, signs fixed; W W' is unchanged."""
    axes, length, _ = np.linalg.svd(loadings, full_matrices=False)
    return fix_signs(axes * length)


def label_parameters(
    loadings: np.ndarray, center: np.ndarray, names: list[str], factors: list[str]
) -> tuple[xr.DataArray, xr.DataArray]:
    """Return loadings (feature, factor) and centre (feature,) with their labels."""
    coords = {FEATURE: names, FACTOR: factors}
    return (
        xr.DataArray(loadings, coords, (FEATURE, FACTOR), "loadings"),
        xr.DataArray(center, {FEATURE: names}, (FEATURE,), "center"),
    )
