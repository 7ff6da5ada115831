"""The package as a user meets it: cheap to import, every public name where it says it is."""

import importlib
import pkgutil
import subprocess
import sys

import pytest

import nfi_pyro
from nfi_pyro import errors

PACKAGES = [
    "nfi_pyro",
    *(f"nfi_pyro.{info.name}" for info in pkgutil.iter_modules(nfi_pyro.__path__) if info.ispkg),
]
HEAVY = ("torch", "pyro", "arviz", "pandas", "xarray", "matplotlib", "scipy", "numpy")


def heavy_after(statement: str) -> set[str]:
    """Return which heavy libraries a fresh interpreter holds after a statement."""
    code = f"{statement}\nimport sys\nprint(*(n for n in {HEAVY} if n in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    return set(done.stdout.split())


def test_importing_the_package_imports_nothing_heavy() -> None:
    assert heavy_after("import nfi_pyro; nfi_pyro.__version__; dir(nfi_pyro)") == set()


def test_importing_the_errors_imports_nothing_heavy() -> None:
    assert heavy_after("from nfi_pyro.errors import NfiError") == set()


@pytest.mark.parametrize("name", ["posterior", "diagnostics", "rendering"])
def test_importing_a_lazy_package_imports_neither_arviz_nor_matplotlib(name: str) -> None:
    assert heavy_after(f"import nfi_pyro.{name}") & {"arviz", "matplotlib", "torch"} == set()


def test_training_and_forecasting_do_not_import_arviz() -> None:
    held = heavy_after("from nfi_pyro import fit_svi, forecast, sample_posterior, FactorVAE")
    assert "torch" in held
    assert held & {"arviz", "matplotlib"} == set()


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_is_there(package: str) -> None:
    module = importlib.import_module(package)
    names = list(getattr(module, "__all__", []))
    assert len(names) == len(set(names))
    for name in names:
        assert getattr(module, name) is not None, name
    if "__dir__" in vars(module):
        assert set(names) <= set(dir(module))
    assert set(getattr(module, "_HOMES", names)) <= set(names)


@pytest.mark.parametrize("package", [name for name in PACKAGES if name != "nfi_pyro"])
def test_no_public_name_is_also_a_submodule(package: str) -> None:
    module = importlib.import_module(package)
    submodules = {info.name for info in pkgutil.iter_modules(module.__path__)}
    assert submodules & set(getattr(module, "__all__", [])) == set()


def test_no_public_name_of_the_root_is_also_a_package() -> None:
    inside = {info.name for info in pkgutil.iter_modules(nfi_pyro.__path__)}
    assert inside & set(nfi_pyro.__all__) == set()


@pytest.mark.parametrize("package", PACKAGES)
def test_an_unknown_name_is_an_attribute_error(package: str) -> None:
    with pytest.raises(AttributeError, match=r"has no attribute 'no_such_name'"):
        importlib.import_module(package).no_such_name  # noqa: B018


def test_the_same_object_is_behind_a_name_of_the_root_and_of_its_home() -> None:
    for name, home in nfi_pyro._HOMES.items():
        assert getattr(nfi_pyro, name) is getattr(importlib.import_module(home), name)


def test_every_error_is_one_of_ours() -> None:
    found = [
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, Exception)
    ]
    assert len(found) > 8
    assert all(issubclass(error, errors.NfiError) for error in found)
    for error in (errors.PanelError, errors.SpecError, errors.ShapeError):
        assert issubclass(error, ValueError)
    assert issubclass(errors.CheckpointError, OSError)


def test_places_are_named_five_at_most() -> None:
    assert errors.name_places([]) == "nowhere"
    assert errors.name_places("abcde") == "a, b, c, d, e"
    assert errors.name_places("abcdefg") == "a, b, c, d, e and 2 more"
    assert errors.name_places(iter([1, 2, 3]), limit=2) == "1, 2 and 1 more"
