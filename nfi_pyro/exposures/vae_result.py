"""A fitted variational autoencoder: latents, reconstruction, evidence, and how it is stored."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from nfi_pyro.dims import ASSET, DATE, EPOCH, FACTOR, FEATURE
from nfi_pyro.errors import SpecError
from nfi_pyro.exposures.rows import check_rows, date_rows, factor_names, match_features
from nfi_pyro.exposures.vae import VAE, VAEContext, VAESpec

ACTIVE_VARIANCE = 0.01
_CHUNK_NUMBERS = 2**22  # draws x rows x (features + hidden) in memory at a time


@dataclass(frozen=True)
class VAEFit:
    """A trained `VAE` and its record.

    Attributes
    ----------
    spec : VAESpec
    weights : dict of str to Tensor
        The module's state, float32 on the CPU.
    features : tuple of str
        Names, in order.
    history : Dataset, dims (epoch,)
        ``elbo``, ``kl`` (training, while its weights moved) and ``validation_elbo``, nats per row.
    posterior_variance : ndarray, shape (factor,)
        Variance of the posterior mean over the training rows; the prior's is 1.
    n_rows, n_dropped : int
        Training rows, and cells of the mask left out because every entry is missing.
    train : tuple of str
        First and last date of the fit.
    seed : int
    """

    spec: VAESpec
    weights: dict[str, Tensor]
    features: tuple[str, ...]
    history: xr.Dataset
    posterior_variance: np.ndarray
    n_rows: int
    n_dropped: int
    train: tuple[str, str]
    seed: int

    @property
    def factors(self) -> list[str]:
        """Labels of the latents."""
        return factor_names("vae", self.spec.n_factors)

    @property
    def active_units(self) -> xr.DataArray:
        """Which latents say something about a row, bool, (factor,).

        Active = the posterior mean varies over rows by more than 0.01 (Burda, Grosse and
        Salakhutdinov 2016); the others have collapsed onto the prior.
        """
        active = self.posterior_variance > ACTIVE_VARIANCE
        return xr.DataArray(active, {FACTOR: self.factors}, (FACTOR,), "active_units")

    def module(self) -> VAE:
        """Return the network with its trained weights, in evaluation mode."""
        module = VAE(self.spec)
        module.load_state_dict(self.weights)
        return module.eval()

    def apply(self, features: xr.DataArray, mask: xr.DataArray | None = None) -> xr.DataArray:
        """Return the posterior mean of z as exposures, (date, asset, factor).

        float32, in prior standard deviations; NaN outside the mask and where every entry is
        missing. See `posterior` for arguments and errors.
        """
        exposures = self.posterior(features, mask)["mean"]
        return exposures.rename("exposures").assign_attrs(source="vae", train=list(self.train))

    def posterior(self, features: xr.DataArray, mask: xr.DataArray | None = None) -> xr.Dataset:
        """Return mean and standard deviation of z given each row's observed entries.

        Parameters
        ----------
        features : DataArray, dims (date, asset, feature)
            The features of the fit, in its order. NaN = missing.
        mask : DataArray of bool, dims (date, asset), optional
            Cells that count; all by default.

        Returns
        -------
        Dataset
            ``mean`` and ``scale`` (> 0), each (date, asset, factor), float32, in prior standard
            deviations: the encoder's approximation. NaN outside the mask and where every entry
            is missing.

        Raises
        ------
        PanelError
            If the features are not those of the fit, or infinite in the mask.
        """
        coords = self._coords(features, {FACTOR: self.factors})
        tail = (self.spec.n_factors,)
        mean = self._cells(features, mask, lambda _, context: context.loc, tail)
        scale = self._cells(features, mask, lambda _, context: context.scale, tail)
        dims = (DATE, ASSET, FACTOR)
        return xr.Dataset({"mean": (dims, mean), "scale": (dims, scale)}, coords)

    def reconstruct(self, features: xr.DataArray, mask: xr.DataArray | None = None) -> xr.DataArray:
        """Return the decoder's mean at the posterior mean, (date, asset, feature), float32.

        In units of the features, missing entries included; NaN outside the mask and where every
        entry is missing. See `posterior` for arguments and errors.
        """
        coords = self._coords(features, {FEATURE: list(self.features)})
        tail = (len(self.features),)
        values = self._cells(features, mask, lambda module, c: module.decode(c.loc), tail)
        return xr.DataArray(values, coords, (DATE, ASSET, FEATURE), "reconstruction")

    def score(
        self,
        features: xr.DataArray,
        mask: xr.DataArray | None = None,
        *,
        draws: int = 64,
        seed: int = 0,
    ) -> xr.DataArray:
        """Return the importance-weighted evidence of each row, (date, asset), nats.

        A lower bound on ``log p(x)`` in expectation, tighter with more draws (Burda, Grosse and
        Salakhutdinov 2016, Eq. 8). NaN outside the mask and where every entry is missing.

        Parameters
        ----------
        features, mask
            As for `posterior`.
        draws : int
            From the guide for each row, >= 1.
        seed : int
            Global generators are left as they were.

        Raises
        ------
        SpecError
            If `draws` is below 1.
        PanelError
            As `posterior`.
        """
        if draws < 1:
            raise SpecError(f"draws must be >= 1; got {draws}. Use 64 or more.")
        width = max(len(self.features), *self.spec.hidden_sizes) + self.spec.n_factors
        chunk = max(1, _CHUNK_NUMBERS // (draws * width))

        def evidence(module: VAE, context: VAEContext) -> Tensor:
            parts = []
            for start in range(0, len(context.values), chunk):
                rows = slice(start, start + chunk)
                part = VAEContext(
                    context.values[rows],
                    context.observed[rows],
                    context.loc[rows],
                    context.scale[rows],
                )
                parts.append(module.log_evidence(part, draws))
            return torch.cat(parts)

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            values = self._cells(features, mask, evidence, ())
        return xr.DataArray(values, self._coords(features, {}), (DATE, ASSET), "log_evidence")

    def _cells(
        self,
        features: xr.DataArray,
        mask: xr.DataArray | None,
        read: Callable[[VAE, VAEContext], Tensor],
        tail: tuple[int, ...],
    ) -> np.ndarray:
        """Return what `read` says of every cell, (date, asset, *tail), NaN where there is none."""
        check_rows(features, mask)
        match_features(features, np.array(self.features))
        module = self.module()
        out = np.full((*features.shape[:2], *tail), np.nan, dtype=np.float32)
        with torch.no_grad():
            for rows in date_rows(features, mask, slice(0, features.shape[0]), complete=False):
                if len(rows.values):
                    values = torch.as_tensor(rows.values.astype(np.float32))
                    out[rows.position, rows.columns] = read(module, module.context(values)).numpy()
        return out

    def _coords(self, features: xr.DataArray, more: dict[str, Any]) -> dict[str, Any]:
        return {dim: features[dim].to_numpy() for dim in (DATE, ASSET)} | more

    def as_dict(self) -> dict[str, Any]:
        """Return plain values and tensors, which ``torch.load(weights_only=True)`` reads back."""
        return {
            "spec": self.spec.model_dump(mode="json"),
            "weights": dict(self.weights),
            "features": list(self.features),
            "history": {str(name): self.history[name].values.tolist() for name in self.history},
            "posterior_variance": self.posterior_variance.tolist(),
            "n_rows": self.n_rows,
            "n_dropped": self.n_dropped,
            "train": list(self.train),
            "seed": self.seed,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "VAEFit":
        """Return the fit that `as_dict` wrote."""
        curves = {name: (EPOCH, np.array(curve)) for name, curve in values["history"].items()}
        return cls(
            spec=VAESpec.model_validate(values["spec"]),
            weights=dict(values["weights"]),
            features=tuple(values["features"]),
            history=xr.Dataset(curves),
            posterior_variance=np.array(values["posterior_variance"]),
            n_rows=int(values["n_rows"]),
            n_dropped=int(values["n_dropped"]),
            train=(values["train"][0], values["train"][1]),
            seed=int(values["seed"]),
        )
