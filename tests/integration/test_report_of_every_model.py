"""`report` of a tiny fit of every model: the sections that apply, and none that do not."""

from pathlib import Path

import pytest

from nfi_pyro.catalogue import MODELS
from nfi_pyro.commands import fit, report

SPECS = {
    "factor_vae": "lags = 3\nprojection_size = 5\nhidden_size = 7\nn_factors = 2\n"
    "n_portfolios = 5\nalpha_hidden_size = 5\nprior_hidden_size = 5",
    "nfi": "lags = 3\nprojection_size = 5\nhidden_size = 7\nn_factors = 2\nn_portfolios = 5\n"
    "prior_hidden_size = 5\npricing_size = 5\nn_components = 2",
    "mixture_pricing": "hidden_size = 5\nn_components = 2",
    "neural_factor": 'hidden_size = 5\nnoise = "student_t"',
    "linear_factor": 'noise = "student_t"',
}
COPULA = {"mixture_pricing", "neural_factor"}


def test_every_model_is_tried() -> None:
    assert set(SPECS) == set(MODELS)


@pytest.mark.parametrize("name", sorted(SPECS))
def test_a_report_shows_what_the_model_has(folder: Path, tmp_path: Path, name: str) -> None:
    spec = tmp_path / "spec.toml"
    svi = "[svi]\nn_epochs = 1\nblock_size = 32\n"
    spec.write_text(f'model = "{name}"\n[spec]\n{SPECS[name]}\n{svi}', encoding="utf-8")
    fit(spec, folder / "panel.zarr", tmp_path / "run", threads=1, progress=False)
    page = report(tmp_path / "run", tmp_path / "r.html", span="validation").read_text("utf-8")
    assert ("Price of risk" in page) == (name != "factor_vae")
    assert ("What the copula shares" in page) == (name in COPULA)
    assert ('id="fig-factors"' in page) == (name not in COPULA)
    assert ('id="fig-kl"' in page) == (name not in COPULA)
    assert ("Monte Carlo, 100,000 draws" in page) == (name != "factor_vae")
    assert ("so heterogeneity is 0" in page) == (name == "linear_factor")
    assert "encoder" not in page.split('id="training"')[1]
    assert "no finite value" not in page
