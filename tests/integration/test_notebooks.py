"""Every notebook in reports/ runs from top to bottom on a small run, and shows its figures."""

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from typer.testing import CliRunner

from nfi_pyro.cli import app

REPORTS = Path(__file__).parents[2] / "reports"
# On a plain run.
FIGURES = {
    "first_look": 5,
    "diagnostics": 13,
    "posterior_predictive": 8,
    "geometry": 1,
    "attribution": 4,
}
# The fewest.
DRAWS = dict.fromkeys(FIGURES, 0) | {"diagnostics": 100, "posterior_predictive": 1000}
NOTICES = ("ArviZ is undergoing", "IProgress not found")  # of importing ArviZ and tqdm
VERDICTS = (
    "convergence",
    "collapse",
    "importance, posterior",
    "importance, encoder",
    "simulation, posterior",
    "simulation, encoder",
    "leave one asset out",
    "PIT",
    "coverage",
    "portfolio coverage",
    "spread against skill",
    "Rank IC",
    "power of Rank IC",
    "scores",
)
HEADS = """
model = "nfi"
[spec]
lags = 3
projection_size = 5
hidden_size = 7
n_factors = 2
n_portfolios = 5
prior_hidden_size = 5
n_components = 2
variant = "posterior"
pricing_size = 5
[spec.heads]
kind = "low_rank"
rank = 2
[svi]
n_epochs = 1
block_size = 64
"""


@pytest.fixture(autouse=True)
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home of its own for the kernel, and the notebooks' defaults but for what a test sets."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    for name in ("NFI_SPAN", "NFI_ASSET", "NFI_WEIGHTS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def uncertain(folder: Path) -> Path:
    """A run of two restarts with random last layers and two components."""
    spec = folder / "heads.toml"
    spec.write_text(HEADS, encoding="utf-8")
    fitted = CliRunner().invoke(
        app,
        ["fit", str(spec), "--panel", str(folder / "panel.zarr"), "--out", str(folder / "heads"),
         "--restarts", "2", "--no-progress"],
    )  # fmt: skip
    assert fitted.exit_code == 0, fitted.output
    return folder / "heads"


def run(stem: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Execute a notebook on a run and return its outputs."""
    monkeypatch.setenv("NFI_RUN", str(place))
    monkeypatch.setenv("NFI_DRAWS", str(DRAWS[stem]))
    notebook = nbformat.read(REPORTS / f"{stem}.ipynb", as_version=4)
    NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def complaints(outputs: list[Any]) -> list[str]:
    """Return errors, and what was written to standard error beside the notices."""
    said = [o.text for o in outputs if o.output_type == "stream" and o.name == "stderr"]
    errors = [o.evalue for o in outputs if o.output_type == "error"]
    return errors + [text for text in said if not any(notice in text for notice in NOTICES)]


def count_figures(outputs: list[Any]) -> int:
    return sum("image/png" in output.get("data", {}) for output in outputs)


def texts(outputs: list[Any], kind: str) -> list[str]:
    return [output.data[kind] for output in outputs if kind in output.get("data", {})]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::RuntimeWarning")
@pytest.mark.parametrize(
    "stem",
    ["first_look", *(pytest.param(stem, marks=pytest.mark.slow) for stem in list(FIGURES)[1:])],
)
def test_a_notebook_runs(stem: str, finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outputs = run(stem, finished, monkeypatch)
    assert complaints(outputs) == []
    assert count_figures(outputs) >= FIGURES[stem]
    if stem == "diagnostics":
        closing = texts(outputs, "text/html")[-1]
        assert [name for name in VERDICTS if f">{name}</th>" not in closing] == []
    if stem == "geometry":
        assert any("prices hidden features" in text for text in texts(outputs, "text/markdown"))
    if stem == "posterior_predictive":
        assert any("--restarts 5" in text for text in texts(outputs, "text/markdown"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::RuntimeWarning")
@pytest.mark.parametrize(("stem", "more"), [("diagnostics", 0), ("posterior_predictive", 2)])
def test_a_notebook_reads_restarts_and_random_last_layers(
    stem: str, more: int, uncertain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between and within variance have a figure for restarts and one for last layers."""
    outputs = run(stem, uncertain, monkeypatch)
    assert complaints(outputs) == []
    assert count_figures(outputs) == FIGURES[stem] + more
    assert not any("--restarts 5" in text for text in texts(outputs, "text/markdown"))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::RuntimeWarning")
def test_the_geometry_notebook_draws_a_pricing_law(
    priced: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = run("geometry", priced, monkeypatch)
    assert complaints(outputs) == []
    assert count_figures(outputs) == FIGURES["geometry"] + 3
    assert any("identified" in text for text in texts(outputs, "text/html"))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::RuntimeWarning")
def test_the_attribution_notebook_draws_the_layer_with_factors(
    priced: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = run("attribution", priced, monkeypatch)
    assert complaints(outputs) == []
    assert count_figures(outputs) == FIGURES["attribution"] + 1
    said = "".join(o.text for o in outputs if o.output_type == "stream" and o.name == "stdout")
    assert "conservation error" in said
    assert any("compound return" in text for text in texts(outputs, "text/html"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::RuntimeWarning")
def test_the_test_span_is_opened_on_request_only(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NFI_SPAN", "test")
    outputs = run("posterior_predictive", finished, monkeypatch)
    assert complaints(outputs) == []
    assert any(o.output_type == "stream" and "\ntest: " in o.text for o in outputs)


def test_every_notebook_is_run_and_stored_without_output() -> None:
    places = sorted(REPORTS.glob("*.ipynb"))
    assert {place.stem for place in places} == set(FIGURES)
    for place in places:
        cells = nbformat.read(place, as_version=4).cells
        assert not any(cell.get("outputs") for cell in cells), place
        assert not any(cell.get("execution_count") for cell in cells), place
