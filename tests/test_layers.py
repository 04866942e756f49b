"""The plan of the house: nine floors, who imports whom, and what no module may do."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import dim_data

PACKAGE = Path(dim_data.__file__).parent
FLOORS = ["images", "networks", "format", "hub", "generator", "loading", "protocol", "distillation", "cli"]
"""Lowest first. A package imports only from those before it."""

FILES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.name not in ("__init__.py", "__main__.py")
}
SIGNS = {".".join(path.parent.relative_to(PACKAGE).parts): path for path in sorted(PACKAGE.rglob("*/__init__.py"))}
"""Packages, and packages inside them, by their dotted names."""
TREES = {
    name: ast.parse(path.read_text(encoding="utf-8"))
    for name, path in {
        **FILES,
        **SIGNS,
        "__init__": PACKAGE / "__init__.py",
        "__main__": PACKAGE / "__main__.py",
    }.items()
}
USE_NAMES = "DistilledDataset, DistilledLoader, Generator, GeneratorConfig, evaluate, ImageSpec"


def imports(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """(module, name) of everything imported in a tree, inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from ((str(node.module), alias.name) for alias in node.names)


def own_imports(name: str) -> set[tuple[str, str]]:
    """What the module ``name`` imports of dim_data: (dotted path below it, name)."""
    found = imports(TREES[name])
    return {(module.partition(".")[2], what) for module, what in found if module.split(".")[0] == "dim_data"}


def siblings(name: str) -> set[str]:
    """Modules of the same package, and signs of packages inside it, that a module imports."""
    package = name.split(".")[0]
    paths = {path if path in FILES else f"{path}.{what}" for path, what in own_imports(name)}
    paths |= {path for path, _ in own_imports(name) if "." in path and path in SIGNS}
    return {path for path in paths if path.split(".")[0] == package and path in {**FILES, **SIGNS}}


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def keyword(call: ast.Call, name: str) -> object:
    """The value of a constant keyword argument, ``None`` if it is not given."""
    return next((ast.literal_eval(k.value) for k in call.keywords if k.arg == name), None)


@pytest.mark.parametrize("statement", ["import dim_data", f"from dim_data import {USE_NAMES}"])
def test_using_loads_nothing_of_producing(statement: str) -> None:
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(run.stdout.split())
    assert "dim_data" in loaded
    assert not loaded & {"torchvision", "huggingface_hub", "matplotlib", "dim_data.distillation", "dim_data.cli"}


def test_importing_the_library_loads_no_floor_of_it() -> None:
    code = "import dim_data, sys\nprint(*(name for name in sys.modules if name.startswith('dim_data.')))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == []


def test_public_names_are_importable_and_listed() -> None:
    wanted = {"DistilledDataset", "DistilledLoader", "Generator", "GeneratorConfig", "ImageSpec"}
    wanted |= {"distill", "DistillConfig", "evaluate"}
    assert wanted <= set(dim_data.__all__) <= set(dir(dim_data))
    for name in dim_data.__all__:
        assert getattr(dim_data, name).__name__ == name
    with pytest.raises(AttributeError, match="module 'dim_data' has no attribute 'Trainer'"):
        _ = dim_data.Trainer


def test_the_command_runs_as_a_module() -> None:
    run = subprocess.run([sys.executable, "-m", "dim_data", "--version"], capture_output=True, text=True, check=True)
    assert dim_data.__version__ in run.stdout


def test_no_exported_name_hides_a_module() -> None:
    for package in FLOORS:
        module = __import__(f"dim_data.{package}", fromlist=["__all__"])
        assert not [name for name in module.__all__ if f"{package}.{name}" in {**FILES, **SIGNS}]


def test_no_public_name_hides_a_package() -> None:
    assert not set(dim_data.__all__) & set(FLOORS)


def test_the_packages_are_the_nine_floors() -> None:
    assert {name for name in SIGNS if "." not in name} == set(FLOORS)
    assert {name.split(".")[0] for name in FILES} == set(FLOORS), "a module lies on no floor"


def test_the_readme_names_the_floors_from_the_top() -> None:
    text = (PACKAGE.parent / "README.md").read_text(encoding="utf-8")
    section = text.split("## How it is built")[1].split("\n## ")[0]
    assert re.findall(r"^\| `(\w+)/` \|", section, re.MULTILINE) == FLOORS[::-1]


@pytest.mark.parametrize("name", FILES)
def test_a_module_imports_only_from_floors_below(name: str) -> None:
    package = name.split(".")[0]
    below = FLOORS[: FLOORS.index(package)]
    for path, what in own_imports(name):
        if path:
            home = path.split(".")[0]
            assert home == package or home in below, f"{name} imports {what} from dim_data.{path}, which is above it"
        else:
            assert what in ("__version__",), f"{name} imports {what} from the top of the house"


@pytest.mark.parametrize("name", FILES)
def test_a_module_reaches_into_another_package_through_its_sign(name: str) -> None:
    package = name.split(".")[0]
    for path, what in own_imports(name):
        if path and path.split(".")[0] != package:
            assert path in FLOORS, f"{name} reaches past the sign of {path.split('.')[0]} for {what}"


@pytest.mark.parametrize("package", FLOORS)
def test_modules_of_a_package_import_each_other_in_no_circle(package: str) -> None:
    inside = [name for name in (*FILES, *SIGNS) if name.startswith(f"{package}.")]
    waiting = {name: siblings(name) for name in inside}
    while waiting:
        ready = [name for name, wanted in waiting.items() if not wanted & waiting.keys()]
        assert ready, f"a circle among {sorted(waiting)}"
        for name in ready:
            del waiting[name]


@pytest.mark.parametrize("package", SIGNS)
def test_a_sign_says_what_lives_there_and_lists_what_it_hands_out(package: str) -> None:
    module = __import__(f"dim_data.{package}", fromlist=["__all__"])
    said = module.__doc__ or ""
    rooms = [name.rpartition(".")[2] for name in (*FILES, *SIGNS) if name.rpartition(".")[0] == package]
    assert not [name for name in rooms if f"``{name}``" not in said], f"the sign of {package} leaves out a module"
    assert "Begin here" in said or "." in package
    handed = {what for _, what in own_imports(package)}
    made = {node.target.id for node in TREES[package].body if isinstance(node, ast.AnnAssign)}
    assert set(module.__all__) <= handed | made
    assert "." in package or set(module.__all__) == handed


@pytest.mark.parametrize("name", FILES)
def test_all_is_sorted_and_exists(name: str) -> None:
    module = __import__(f"dim_data.{name}", fromlist=["__all__"])
    assert sorted(module.__all__) == sorted(set(module.__all__))
    assert all(hasattr(module, public) for public in module.__all__)
    assert module.__doc__


@pytest.mark.parametrize("name", FILES)
def test_a_module_is_small(name: str) -> None:
    assert len(FILES[name].read_text(encoding="utf-8").splitlines()) <= 300


def test_the_library_imports_its_floors_lazily() -> None:
    top = [node for node in TREES["__init__"].body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert {module.split(".")[0] for node in top for module, _ in imports(node)} == {
        "__future__",
        "importlib",
        "typing",
    }


def test_distillation_does_not_know_how_its_generators_are_loaded() -> None:
    names = [name for name in FILES if name.startswith("distillation.")]
    assert not [name for name in names for path, _ in own_imports(name) if path.startswith("loading")]


@pytest.mark.parametrize("name", TREES)
def test_what_a_docstring_refers_to_exists(name: str) -> None:
    text = ast.unparse(TREES[name])
    for target in re.findall(r":\w+:`(?:[^`<]*<)?~?(dim_data(?:\.\w+)+)>?`", text):
        parts = target.split(".")
        module = max(
            (parts[:length] for length in range(1, len(parts) + 1) if is_module(".".join(parts[:length]))), key=len
        )
        found: Any = importlib.import_module(".".join(module))
        for part in parts[len(module) :]:
            found = getattr(found, part, None)
        assert found is not None, target


def is_module(name: str) -> bool:
    path = PACKAGE.parent.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or path.is_dir()


@pytest.mark.parametrize("name", TREES)
def test_what_no_module_does(name: str) -> None:
    tree, roots = TREES[name], {module.split(".")[0] for module, _ in imports(TREES[name])}
    edge = name.startswith("cli")
    assert not [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Assert)], (
        "users' mistakes get exceptions"
    )
    assert not roots & {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "yaml"}
    assert name == "hub.client" or "huggingface_hub" not in roots
    assert edge or "tqdm" not in roots
    for function, call in calls(tree):
        assert edge or function not in ("print", "input", "sys.stdout.write")
        assert function not in ("eval", "exec", "torch.hub.load")
        if function == "torch.load":
            assert keyword(call, "weights_only") is True
        if function in ("np.load", "numpy.load"):
            assert keyword(call, "allow_pickle") is False
