"""Every notebook in reports/ runs from top to bottom on a small run, and shows its figures."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

REPORTS = Path(__file__).parents[2] / "reports"
NOTEBOOKS = sorted(REPORTS.glob("*.ipynb"))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::RuntimeWarning")
@pytest.mark.parametrize("place", NOTEBOOKS, ids=lambda place: place.stem)
def test_a_notebook_runs(
    place: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NFI_RUN", str(finished))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    notebook = nbformat.read(place, as_version=4)
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    images = [o for o in outputs if "image/png" in o.get("data", {})]
    assert len(images) >= 5
    assert not [o for o in outputs if o.output_type == "error"]


def test_notebooks_are_stored_without_output() -> None:
    assert NOTEBOOKS
    for place in NOTEBOOKS:
        cells = nbformat.read(place, as_version=4).cells
        assert not any(cell.get("outputs") for cell in cells), place
