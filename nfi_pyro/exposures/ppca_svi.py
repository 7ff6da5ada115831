"""Probabilistic PCA as a Pyro model and guide, fitted by stochastic variational inference."""

import math
import warnings
from dataclasses import dataclass

import numpy as np
import pyro
import torch
import xarray as xr
from pyro import poutine
from pyro.distributions import MultivariateNormal, Normal
from pyro.infer import TraceMeanField_ELBO
from torch import Tensor, nn

from nfi_pyro.dims import FEATURE
from nfi_pyro.errors import NonFiniteLossError, SpecError
from nfi_pyro.exposures.linear_gaussian import LinearGaussian, row_posterior
from nfi_pyro.exposures.ppca import gather_moments, refuse_unusable
from nfi_pyro.exposures.ppca_result import PPCAFit, canonical_loadings, label_parameters
from nfi_pyro.exposures.rows import (
    Moments,
    Span,
    check_factor_count,
    check_rows,
    date_rows,
    factor_names,
    span_days,
    span_positions,
)


@dataclass(frozen=True)
class RowBatch:
    """Some rows of all that there are.

    Attributes
    ----------
    values : Tensor, shape (row, feature)
        Finite everywhere; 0 where not observed.
    observed : Tensor of bool, shape (row, feature)
    index : Tensor of int, shape (row,)
        Positions among all rows.
    n_rows : int
        Of the whole training set; Pyro's plate scales the batch up to it.
    """

    values: Tensor
    observed: Tensor
    index: Tensor
    n_rows: int


class PPCAModel(nn.Module):
    r"""``x = W z + center + noise`` over plates ``row`` and ``feature``, and a linear guide.

    Model: ``z ~ N(0, I)`` by row, ``features ~ N(W z + center, s2)`` by row and feature, masked
    where not observed. Guide: ``z ~ N(A (x - center), L L')`` with one L for all rows, which
    holds the exact posterior when no entry is missing; with gaps it is an approximation, and the
    bound lies below the evidence. Learnables are module parameters; no parameter store.

    Parameters
    ----------
    moments : Moments
        Of the rows: where centre and noise begin.
    n_factors : int
    seed : int
        Of the initial loadings; the global generator is left as it was.
    """

    def __init__(self, moments: Moments, n_factors: int, *, seed: int) -> None:
        super().__init__()
        covariance = moments.scatter / moments.n
        spread = math.sqrt(float(covariance.diagonal().mean()))
        generator = torch.Generator().manual_seed(seed)
        shape = (len(moments.mean), n_factors)
        loadings = torch.randn(shape, generator=generator, dtype=torch.float64)
        self.loadings = nn.Parameter(0.3 * spread * loadings)
        self.center = nn.Parameter(torch.as_tensor(moments.mean.copy()))
        self.log_scale = nn.Parameter(torch.tensor(math.log(spread), dtype=torch.float64))
        self.encoder = nn.Parameter(0.1 / spread * loadings.T.contiguous())
        self.raw_tril = nn.Parameter(torch.zeros(n_factors, n_factors, dtype=torch.float64))

    def model(self, batch: RowBatch) -> None:
        """Pyro model: sites ``z`` and ``features``."""
        n_features, n_factors = self.loadings.shape
        eye = torch.eye(n_factors, dtype=self.loadings.dtype)
        rows = pyro.plate("row", batch.n_rows, subsample=batch.index, dim=-2)
        with rows:
            prior = MultivariateNormal(eye.new_zeros(n_factors), scale_tril=eye)
            z = pyro.sample("z", prior.expand([len(batch.index), 1]))
            loc = (z @ self.loadings.T).squeeze(-2) + self.center
            with pyro.plate("feature", n_features, dim=-1), poutine.mask(mask=batch.observed):  # type: ignore[call-overload]
                pyro.sample("features", Normal(loc, self.log_scale.exp()), obs=batch.values)

    def guide(self, batch: RowBatch) -> None:
        """Pyro guide: z given the row's observed entries."""
        residual = torch.where(batch.observed, batch.values - self.center, 0.0)
        loc = (residual @ self.encoder.T).unsqueeze(-2)
        tril = self.raw_tril.tril(-1) + self.raw_tril.diagonal().exp().diag()
        with pyro.plate("row", batch.n_rows, subsample=batch.index, dim=-2):
            pyro.sample("z", MultivariateNormal(loc, scale_tril=tril))

    def parameters_as_arrays(self) -> LinearGaussian:
        """Return W, centre and s2 as learned."""
        with torch.no_grad():
            return LinearGaussian(
                self.loadings.numpy().copy(),
                self.center.numpy().copy(),
                float((2.0 * self.log_scale).exp()),
            )


def fit_ppca_svi(
    features: xr.DataArray,
    mask: xr.DataArray,
    *,
    n_factors: int,
    seed: int,
    train: Span = None,
    n_steps: int = 1500,
    learning_rate: float = 0.03,
    batch_size: int = 1024,
) -> PPCAFit:
    """Return probabilistic PCA fitted by SVI, in the form that `fit_ppca` returns.

    The ELBO is Pyro's `TraceMeanField_ELBO` (closed-form KL of two Gaussians), by Adam with a
    cosine decay to zero. `fit_ppca` is exact and much faster; this is the pattern for models
    without a closed form, checked against one that has it: without missing entries its
    log-likelihood comes within 0.01 nats per row of the closed form's.

    Parameters
    ----------
    features, mask, n_factors, train
        As in `fit_ppca`; all training rows are held in memory as float64.
    seed : int
        Of the start, the batches and the draws; global generators are left as they were.
    n_steps, learning_rate, batch_size
        Steps, peak rate and rows in a step.

    Raises
    ------
    PanelError, SpecError
        As `fit_ppca`.
    NonFiniteLossError
        If the loss stops being a number.

    References
    ----------
    .. [1] Tipping, Bishop (1999). Probabilistic Principal Component Analysis. JRSS B 61(3).
    .. [2] Kingma, Welling (2014). Auto-Encoding Variational Bayes. ICLR.
    """
    check_rows(features, mask)
    if n_steps < 1 or batch_size < 1 or not learning_rate > 0:
        raise SpecError(
            "n_steps and batch_size must be >= 1 and learning_rate > 0; got "
            f"{n_steps}, {batch_size} and {learning_rate}. Use 1500, 1024 and 0.03."
        )
    n_factors = check_factor_count(n_factors, features.sizes[FEATURE], fewer=True)
    positions = span_positions(features, train)
    moments, n_dropped = gather_moments(
        features, mask, positions, n_factors=n_factors, complete=False
    )
    names = features[FEATURE].to_numpy()
    refuse_unusable(moments, names, n_factors)
    blocks = [rows.values for rows in date_rows(features, mask, positions, complete=False)]
    values = np.concatenate(blocks)
    module = PPCAModel(moments, n_factors, seed=seed)
    with torch.random.fork_rng(devices=[]), pyro.settings.context(module_local_params=True):
        torch.manual_seed(seed)
        # Pyro's warning of a NaN: the training loop raises an error that says more.
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Encountered NaN")
            history = _train(module, values, n_steps, learning_rate, batch_size)
    model = module.parameters_as_arrays()
    loadings, center = label_parameters(
        canonical_loadings(model.loadings),
        model.center,
        names.tolist(),
        factor_names("ppca", n_factors),
    )
    return PPCAFit(
        method="svi",
        loadings=loadings,
        center=center,
        noise_variance=model.noise_variance,
        log_likelihood=sum(float(row_posterior(model, x).log_likelihood.sum()) for x in blocks),
        n_rows=moments.n,
        n_entries=int((~np.isnan(values)).sum()),
        n_dropped=n_dropped,
        history=history,
        converged=True,
        collinear_features=(),
        train=span_days(features, positions),
    )


def _train(
    module: PPCAModel, values: np.ndarray, n_steps: int, learning_rate: float, batch_size: int
) -> np.ndarray:
    """Maximise the ELBO; return it by step, nats per row."""
    whole = torch.as_tensor(values)
    observed = ~whole.isnan()
    finite = torch.where(observed, whole, 0.0)
    n_rows, size = len(whole), min(batch_size, len(whole))
    elbo = TraceMeanField_ELBO()
    optimizer = torch.optim.Adam(module.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_steps)
    history = np.empty(n_steps)
    for step in range(n_steps):
        index = torch.randint(n_rows, (size,)) if size < n_rows else torch.arange(n_rows)
        batch = RowBatch(finite[index], observed[index], index, n_rows)
        # Values that are no numbers are named below, in our words; shapes do not change.
        with pyro.validation_enabled(False):
            loss = elbo.differentiable_loss(module.model, module.guide, batch) / n_rows
        history[step] = -float(loss.detach())
        if not math.isfinite(history[step]):
            raise NonFiniteLossError(
                f"the ELBO must be finite; got {history[step]} at step {step}. Standardise the "
                "features or lower learning_rate."
            )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return history
