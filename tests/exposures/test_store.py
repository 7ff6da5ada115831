"""Scores of a whole panel, and fits as bytes: equal, without pickles, refused when altered."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from nfi_pyro.errors import CheckpointError, PanelError, SpecError
from nfi_pyro.exposures import VAEFit, VAESpec, VAETraining, fit_pca, fit_ppca, fit_vae
from nfi_pyro.exposures.scoring import ExposureFit, factors_in_use, score_cells
from nfi_pyro.exposures.store import pack_fit, unpack_fit

Plant = Callable[..., Any]
KINDS = ("pca pooled", "pca expanding", "pca per_date", "ppca", "vae")
TRAIN = slice(0, 11)


def fit_of(kind: str, data: Any) -> ExposureFit:
    method, _, mode = kind.partition(" ")
    if method == "pca":
        options: Any = {"mode": mode}
        return fit_pca(data.features, data.mask, n_factors=2, train=TRAIN, **options)
    if method == "ppca":
        return fit_ppca(data.features, data.mask, n_factors=2, train=TRAIN)
    return fit_vae(
        data.features,
        data.mask,
        spec=VAESpec(n_factors=2, hidden_sizes=(5,)),
        train=TRAIN,
        validation=slice(11, 17),
        training=VAETraining(n_epochs=2),
        seed=3,
    )


def complete_of(data: Any) -> xr.DataArray:
    return data.features.notnull().all("feature")


# ---- scores --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_rows_with_a_missing_entry_have_no_score_and_the_others_do(kind: str, plant: Plant) -> None:
    data = plant()
    fit = fit_of(kind, data)
    data.features[3, 5, 2] = np.nan
    data.features[14, 7, 6] = np.nan
    complete = complete_of(data)
    scores = score_cells(fit, data.features, data.mask, complete)
    assert scores.dims == ("date", "asset", "factor")
    assert scores.dtype == np.float32
    known = scores.notnull().to_numpy()
    assert (known.all(axis=2) == known.any(axis=2)).all()
    expected = complete.to_numpy().copy()
    assert not expected[3, 5]
    assert not expected[14, 7]
    assert (known.all(axis=2) == expected).all()


@pytest.mark.parametrize("kind", ["pca pooled", "ppca", "vae"])
def test_scores_are_those_of_the_fit(kind: str, plant: Plant) -> None:
    data = plant()
    fit = fit_of(kind, data)
    scores = score_cells(fit, data.features, data.mask, complete_of(data))
    np.testing.assert_allclose(scores, fit.apply(data.features), rtol=1e-6, atol=1e-6)


def test_a_date_of_its_own_is_scored_by_its_own_universe(plant: Plant) -> None:
    data = plant()
    fit = fit_of("pca per_date", data)
    scores = score_cells(fit, data.features, data.mask, complete_of(data))
    last = data.features[16].to_numpy().astype(np.float64)
    rows = last[data.mask.to_numpy()[16]]
    axes = np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)[2][:2]
    expected = (last - rows.mean(axis=0)) @ axes.T
    np.testing.assert_allclose(np.abs(scores[16]), np.abs(expected), rtol=1e-4, atol=1e-5)


def test_an_expanding_fit_scores_no_date_before_its_first(plant: Plant) -> None:
    data = plant()
    fit = fit_pca(data.features, data.mask, n_factors=2, mode="expanding", train=slice(4, 11))
    scores = score_cells(fit, data.features, data.mask, complete_of(data))
    assert scores[:4].isnull().all()
    assert scores[4:].notnull().all()
    later = fit.loadings[-1].to_numpy()
    expected = (data.features[13].to_numpy() - fit.center[-1].to_numpy()) @ later
    np.testing.assert_allclose(scores[13], expected, rtol=1e-5, atol=1e-5)


def vae_with(fit: ExposureFit, variance: list[float]) -> VAEFit:
    assert isinstance(fit, VAEFit)
    return VAEFit.from_dict(fit.as_dict() | {"posterior_variance": np.array(variance).tolist()})


def test_collapsed_latents_are_left_out_by_name(plant: Plant) -> None:
    data = plant()
    fit = vae_with(fit_of("vae", data), [0.001, 0.8])
    assert factors_in_use(fit) == ["vae2"]
    scores = score_cells(fit, data.features, data.mask, complete_of(data))
    assert scores["factor"].values.tolist() == ["vae2"]
    np.testing.assert_array_equal(scores[..., 0], fit.apply(data.features)[..., 1])
    with pytest.raises(PanelError, match="must have a latent in use; got none of 2"):
        factors_in_use(vae_with(fit, [0.001, 0.002]))


# ---- bytes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_stored_fit_scores_the_same_bits(kind: str, plant: Plant) -> None:
    data = plant()
    fit = fit_of(kind, data)
    content = pack_fit(fit)
    found = unpack_fit(kind.split()[0], content)
    assert pack_fit(found) == content
    for features in (data.features, plant(seed=5).features):
        arguments = (features, data.mask, complete_of(data))
        xr.testing.assert_identical(score_cells(found, *arguments), score_cells(fit, *arguments))


def test_equal_fits_are_equal_bytes_and_others_are_not(plant: Plant) -> None:
    assert pack_fit(fit_of("vae", plant())) == pack_fit(fit_of("vae", plant()))
    assert pack_fit(fit_of("ppca", plant())) != pack_fit(fit_of("ppca", plant(seed=1)))


class Trap:
    """What a pickle would run."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> Any:
        return (Path.touch, (self.place,))


@pytest.mark.parametrize("method", ["pca", "ppca", "vae"])
def test_a_pickle_in_the_file_is_not_run(method: str, plant: Plant, tmp_path: Path) -> None:
    fit = fit_of({"pca": "pca pooled"}.get(method, method), plant())
    content = io.BytesIO(pack_fit(fit))
    with np.load(content, allow_pickle=False) as opened:
        values: dict[str, Any] = {name: opened[name] for name in opened.files}
    values[next(iter(values))] = np.array([Trap(tmp_path / "ran")], dtype=object)
    buffer = io.BytesIO()
    np.savez(buffer, **values)
    with pytest.raises(CheckpointError, match=rf"a stored {method} must hold the arrays of one"):
        unpack_fit(method, buffer.getvalue())
    assert not (tmp_path / "ran").exists()


def test_what_is_no_fit_is_refused(plant: Plant) -> None:
    content = pack_fit(fit_of("ppca", plant()))
    for altered in (b"", b"text", content[:-40], content[40:]):
        with pytest.raises(CheckpointError, match="a stored ppca must hold the arrays of one"):
            unpack_fit("ppca", altered)
    with pytest.raises(CheckpointError, match="a stored vae must hold the arrays of one"):
        unpack_fit("vae", content)
    with pytest.raises(CheckpointError, match="got KeyError"):
        unpack_fit("pca", content)
    empty = io.BytesIO()
    zipfile.ZipFile(empty, "w").close()
    with pytest.raises(CheckpointError, match="got KeyError"):
        unpack_fit("ppca", empty.getvalue())
    with pytest.raises(SpecError, match="the method must be one of pca, ppca, vae; got 'ica'"):
        unpack_fit("ica", content)
