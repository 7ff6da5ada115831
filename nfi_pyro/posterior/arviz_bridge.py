"""The one bridge to ArviZ: a dict of labelled datasets, and an adapter per ArviZ generation."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import xarray as xr

with warnings.catch_warnings():  # ArviZ 0.23 announces 1.x once a day; the adapters know both
    warnings.filterwarnings("ignore", r"\s*ArviZ is undergoing", FutureWarning)
    import arviz as az

from nfi_pyro.errors import ShapeError, SpecError
from nfi_pyro.posterior.chains import as_chains, check_chains
from nfi_pyro.posterior.draws import Posterior
from nfi_pyro.posterior.group_files import read_group_files, write_group_files
from nfi_pyro.posterior.groups import Groups, build_groups
from nfi_pyro.posterior.return_forecast import ReturnForecast
from nfi_pyro.svi.config import check_seed
from nfi_pyro.svi.trained import SVIFit

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


def to_inference_data(
    fit: SVIFit | Sequence[SVIFit],
    posterior: Posterior | Sequence[Posterior],
    forecast: ReturnForecast | Sequence[ReturnForecast] | None = None,
    *,
    quantiles: tuple[float, ...] = QUANTILES,
    replicate_dates: int = 20,
    seed: int = 0,
    diagnostics: xr.Dataset | None = None,
) -> Any:
    r"""Return the posterior of a fit, or of restarts, as ArviZ InferenceData (0.x) or a DataTree.

    A chain is an independent SVI restart (attr `chain_meaning`); its draws are independent, so
    effective sample size and traces say nothing about convergence, and R-hat speaks of restarts.
    `nfi_pyro.diagnostics.arviz_guide` lists which ArviZ functions mean something here, and
    `nfi_pyro.diagnostics.observed_view` is what to hand to those that read replicates: cells
    without an observed return are NaN here, which ArviZ 0.23 takes silently.

    ==============================  =============================================================
    group                           holds
    ==============================  =============================================================
    ``posterior``                   `z` (chain, draw, date, factor), `book_factor_return` (chain,
                                    draw, date), draws of Bayesian last layers
    ``prior``                       `z` and `book_factor_return`, made without the returns
    ``prior_predictive``,           `forward_return` (chain, draw, date, asset) given each draw
    ``posterior_predictive``        of z, last dates only, NaN where an asset did not enter
    ``log_likelihood``              ``log p(y_it | z)`` of the same cells, NaN where unobserved
    ``sample_stats``                `lp` and `log_q` (chain, draw, date), same dates: the log of
                                    an importance weight is their difference
    ``observed_data``               `forward_return` (date, asset) of every date
    ``constant_data``               exposures, specific parts, moments of prior, posterior and
                                    encoder, every date; of the first chain
    ``predictions``                 mean, standard deviation and exact quantiles (date, asset) of
                                    every forecast date; several chains: of their equal mixture,
                                    with `within_sd` and `between_sd`, whose squares add up
    ``predictions_constant_data``   `ReturnForecast.data` of the last date; of the first chain
    ``fit``                         training curves (chain, step) and (chain, epoch)
    ``diagnostics``                 what `diagnostics` holds
    ==============================  =============================================================

    A model without shared factors has nothing latent: no prior, no posterior, no replicates.
    Replicates have the networks at their location; where last layers are random, their factors
    are draws of their own (attr `factors` of the group). Every variable has `units`.

    Size on disk, D dates, N assets, K factors, Q quantiles, W dates of replicates, S draws:
    ``D N (4 K + 13 + 4 (Q + 2))`` bytes of constants and predictions, ``3 * 4 W N S`` of
    replicates, ``8 S D K`` of factors, before compression. 3,000 assets, 500 dates, 16 factors, 3
    components and 200 draws: 170 + 144 + 13 MB; a chain more costs 157 MB. On disk replicates,
    which keep three digits, shrink to 65 percent, log likelihoods to 82 and the rest to about
    95: 275 MB with one chain, 115 MB for each more. Whole-panel draws and log
    likelihoods would be 1.2 GB each; draw them again by `ReturnForecast.sample` instead.

    Parameters
    ----------
    fit : SVIFit, or sequence
        Several: restarts of one design on one panel that differ in seed.
    posterior : Posterior, or sequence
        One per fit, factors aligned with the first one's.
    forecast : ReturnForecast, or sequence, optional
        One per fit. Without it there are no predictions and no replicates.
    quantiles : tuple of float
        Levels of ``predictions.forward_return_quantile``.
    replicate_dates : int
        Replicates and log likelihoods cover so many dates: the last that have an observed return
        and a forecast. 0: none.
    seed : int
        Of the replicates.
    diagnostics : Dataset, optional
        Over (date,), for example the k-hat of each date's importance weights.

    Returns
    -------
    arviz.InferenceData or xarray.DataTree

    Raises
    ------
    SpecError
        If the three do not belong together or the chains are no restarts of one design, or
        `replicate_dates` or `seed` is out of range.
    ShapeError
        If chains differ in dates, assets, draws or factors, or `diagnostics` in its dates.
    """
    fits, posteriors, forecasts = as_chains(fit), as_chains(posterior), as_chains(forecast)
    check_chains(fits, posteriors, forecasts)
    if replicate_dates < 0:
        raise SpecError(f"replicate_dates must be >= 0; got {replicate_dates}. 20 are usual.")
    if diagnostics is not None:
        _check_dates(diagnostics, posteriors[0])
    groups = build_groups(
        fits,
        posteriors,
        forecasts,
        quantiles=quantiles,
        replicate_dates=replicate_dates,
        seed=check_seed(seed),
        diagnostics=diagnostics,
    )
    return to_container(groups, groups["observed_data"].attrs)


def write_inference_data(container: Any, path: str | Path) -> None:
    """Write an InferenceData or DataTree as netCDF or zarr, by the suffix, atomically.

    Parameters
    ----------
    container : InferenceData or DataTree
    path : str or Path
        Ends in ``.nc`` or ``.zarr``. ArviZ 0.23 itself refuses zarr 3 and above.

    Raises
    ------
    SpecError
        If the suffix is neither.
    CheckpointError
        If the place cannot be written; its own ``to_netcdf`` ends the process on a full disk.
    """
    write_group_files(container_groups(container), container.attrs, Path(path))


def read_inference_data(path: str | Path) -> Any:
    """Return the InferenceData or DataTree that was written at `path`; arrays are read on use.

    Parameters
    ----------
    path : str or Path
        Ends in ``.nc`` or ``.zarr``.

    Raises
    ------
    SpecError
        If the suffix is neither.
    CheckpointError
        If nothing is there, or it is truncated or of another kind.
    """
    tree = read_group_files(Path(path))
    if not hasattr(az, "InferenceData"):
        return tree
    return to_container(container_groups(tree), tree.attrs)


def to_container(groups: Groups, attrs: dict[Any, Any]) -> Any:
    """Return groups as ArviZ's container: InferenceData (0.x) or DataTree (1.x)."""
    if hasattr(az, "InferenceData"):
        return az.InferenceData(attrs=dict(attrs), **groups)  # type: ignore[arg-type]
    tree = xr.DataTree.from_dict({f"/{name}": group for name, group in groups.items()})
    tree.attrs = dict(attrs)
    return tree


def container_groups(container: Any) -> Groups:
    """Return the groups of an InferenceData or DataTree by name."""
    if isinstance(container, xr.DataTree):
        return {name: node.to_dataset() for name, node in container.children.items()}
    return {name: container[name] for name in container.groups()}


def _check_dates(diagnostics: xr.Dataset, posterior: Posterior) -> None:
    """Refuse diagnostics of other dates than the posterior's."""
    known = set(posterior.constants["date"].values)
    if "date" not in diagnostics.coords or not set(diagnostics["date"].values) <= known:
        raise ShapeError(
            "diagnostics must be labelled by dates of the posterior; got "
            f"{dict(diagnostics.sizes)}. Compute them over the posterior's dates."
        )
