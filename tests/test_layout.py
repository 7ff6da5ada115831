"""The house rules of the tree, read from the syntax: floors, walls, sizes, names."""

import ast
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from nfi_pyro.catalogue import MODELS
from nfi_pyro.svi import SVIConfig

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "nfi_pyro"
MODEL_FLOOR = (
    "factor_vae",
    "nfi",
    "mixture_pricing",
    "neural_factor",
    "linear_factor",
    "exposures",
    "baselines",
)
LAYERS = (
    ("dims", "errors"),
    ("nets", "distributions", "data"),
    MODEL_FLOOR,
    ("catalogue",),
    ("svi",),
    ("posterior",),
    ("diagnostics", "geometry", "portfolio"),
    ("attribution", "experiments"),
    ("rendering",),
    ("commands",),
    ("cli",),
)
FLOOR = {name: floor for floor, names in enumerate(LAYERS) for name in names}
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
VAGUE_NAMES = {"utils", "helpers", "common", "base", "misc"}
MODULES = sorted(path for path in PACKAGE.rglob("*.py"))
ANALYSES = ("diagnostics", "geometry", "portfolio", "attribution", "experiments")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def home_of(path: Path) -> str:
    """Return the package of a module: the first folder, or its own name at the top."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports_of(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and dotted name of every import, those by name in a string included."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                yield node.lineno, f"{node.module}.{alias.name}"
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            parts = node.value.split(".")
            if len(parts) > 1 and parts[0] == "nfi_pyro" and all(map(str.isidentifier, parts)):
                yield node.lineno, node.value


def third_parties(path: Path) -> set[str]:
    return {name.split(".")[0] for _, name in imports_of(path)} - {"nfi_pyro"}


# ---- floors --------------------------------------------------------------------------------------


def test_every_module_has_a_floor() -> None:
    homes = {home_of(path) for path in MODULES} - {"__init__"}
    assert homes - set(FLOOR) == set()
    assert len(FLOOR) == sum(map(len, LAYERS))


def test_modules_import_from_lower_floors_or_their_own_package() -> None:
    wrong = []
    for path in MODULES:
        home = home_of(path)
        if home == "__init__":
            continue  # the public names, from every floor, on first use
        for line, name in imports_of(path):
            parts = name.split(".")
            if parts[0] != "nfi_pyro" or parts[1:] in ([], ["__version__"]):
                continue
            if parts[1] != home and FLOOR.get(parts[1], len(LAYERS)) >= FLOOR[home]:
                wrong.append(f"{name_of(path)}:{line} ({home}) imports {name}")
    assert wrong == []


def test_the_package_itself_is_imported_for_its_version_alone() -> None:
    wrong = [
        f"{name_of(path)}:{node.lineno} nfi_pyro.{node.attr}"
        for path in MODULES
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "nfi_pyro"
        and node.attr != "__version__"
    ]
    assert wrong == []


def test_no_import_is_relative() -> None:
    wrong = [
        f"{name_of(path)}:{node.lineno}"
        for path in MODULES
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.ImportFrom) and node.level
    ]
    assert wrong == []


def test_the_report_knows_analyses_by_their_results_alone() -> None:
    wrong = [
        f"{name_of(path)}:{line} imports {name}"
        for path in MODULES
        if home_of(path) == "rendering"
        for line, name in imports_of(path)
        if name.split(".")[0] == "nfi_pyro"
        and name.split(".")[1] in ANALYSES
        and name.split(".")[2:3] != ["results"]
    ]
    assert wrong == []


# ---- walls ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("library", "banned"),
    [
        ("pandas", ("nets", "distributions")),
        ("xarray", ("nets", "distributions")),
        ("torch", ("rendering", "portfolio/measures.py")),
        ("pyro", ("rendering", "nets", "data", "diagnostics", "portfolio")),
    ],
)
def test_a_library_stays_out_of_some_rooms(library: str, banned: tuple[str, ...]) -> None:
    wrong = [
        name_of(path)
        for path in MODULES
        if path.relative_to(PACKAGE).as_posix().startswith(banned)
        and library in third_parties(path)
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("library", "allowed"),
    [
        ("matplotlib", ("rendering/figures/",)),
        ("arviz", ("posterior/arviz_bridge.py", "diagnostics/")),
    ],
)
def test_a_library_is_used_in_one_place(library: str, allowed: tuple[str, ...]) -> None:
    users = [
        path.relative_to(PACKAGE).as_posix() for path in MODULES if library in third_parties(path)
    ]
    assert users  # the wall has something behind it
    assert [user for user in users if not user.startswith(allowed)] == []


# ---- sizes and names -----------------------------------------------------------------------------


def test_files_are_short() -> None:
    lengths = {name_of(path): len(path.read_text().splitlines()) for path in MODULES}
    assert {name: n for name, n in lengths.items() if n > MAX_FILE_LINES} == {}


def body_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the lines of a function, its docstring not counted."""
    total = (node.end_lineno or node.lineno) - node.lineno + 1
    first = node.body[0]
    if ast.get_docstring(node) is not None:
        total -= (first.end_lineno or first.lineno) - first.lineno + 1
    return total


def test_functions_are_short() -> None:
    long = {
        f"{name_of(path)}:{node.name}": body_lines(node)
        for path in MODULES
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and body_lines(node) > MAX_FUNCTION_LINES
    }
    assert long == {}


def test_no_module_is_named_after_nothing() -> None:
    everything = [*PACKAGE.rglob("*"), *(ROOT / "tests").rglob("*")]
    assert [name_of(path) for path in everything if path.stem in VAGUE_NAMES] == []


def test_no_folder_of_the_top_level_recurs_inside_the_package() -> None:
    top = {"models", "inference", "reports", "tests"}
    assert [name_of(path) for path in PACKAGE.rglob("*") if path.stem in top] == []


@pytest.mark.parametrize("room", ["models", "inference", "reports"])
def test_the_rooms_of_the_work_are_no_packages(room: str) -> None:
    assert [name_of(path) for path in (ROOT / room).rglob("__init__.py")] == []


def test_every_package_says_what_it_is_and_has_its_own_init() -> None:
    for folder in (path for path in PACKAGE.iterdir() if any(path.glob("*.py"))):
        init = folder / "__init__.py"
        assert init.is_file(), name_of(folder)
        assert ast.get_docstring(tree_of(init)), name_of(init)
    assert (PACKAGE / "py.typed").is_file()


def test_the_wheel_holds_the_package_alone() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == ["nfi_pyro"]


# ---- models --------------------------------------------------------------------------------------


def pricing_packages() -> set[str]:
    """Return the packages of the models' floor with a class that has a law."""
    return {
        home_of(path)
        for path in MODULES
        if home_of(path) in MODEL_FLOOR
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.ClassDef)
        and any(isinstance(item, ast.FunctionDef) and item.name == "law" for item in node.body)
    }


def test_every_pricing_law_has_its_card_and_spec_and_the_reverse() -> None:
    rooms = {path.name for path in (ROOT / "models").iterdir() if path.is_dir()}
    assert pricing_packages() == rooms
    assert pricing_packages() == set(MODELS)
    for name in sorted(rooms):
        room = ROOT / "models" / name
        assert {"card.md", "spec.toml"} <= {path.name for path in room.iterdir()}, name
        assert MODELS[name].package == f"nfi_pyro.{name}"


@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_key_of_a_spec_file_is_a_field_of_its_class(name: str) -> None:
    for path in sorted((ROOT / "models" / name).glob("*.toml")):
        stored = tomllib.loads(path.read_text())
        assert stored["model"] == name, path.name
        MODELS[name].spec_class().model_validate(stored["spec"])  # refuses unknown keys
        SVIConfig.model_validate(stored.get("svi", {}))
