"""The rules of the package's shape: who imports whom, and what no module may do."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import dim_data

PACKAGE = Path(dim_data.__file__).parent
MODULES = sorted(path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__")
TREES = {name: ast.parse((PACKAGE / f"{name}.py").read_text(encoding="utf-8")) for name in [*MODULES, "__init__"]}

USE_NAMES = "DistilledDataset, DistilledLoader, Generator, GeneratorConfig, evaluate, ImageSpec"
PRODUCE = {
    "adversarial",
    "reconstruction",
    "pool",
    "matching",
    "refining",
    "loops",
    "presets",
    "runs",
    "candidates",
    "distillation",
}
EDGE = {"arguments", "progress", "cli"}
USE = {"dataset", "loader", "passes", "evaluation", "generator", "config", "storage", "hub", "specs"}


def readme_order() -> list[str]:
    """Module names in the order of the table under "How it is built"."""
    text = (PACKAGE.parent / "README.md").read_text(encoding="utf-8")
    section = text.split("## How it is built")[1].split("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return [name for row in rows for name in re.findall(r"`(\w+)\.py`", row)]


def imports(tree: ast.AST) -> Iterator[str]:
    """Dotted names of everything imported in a tree, inside functions too; ``from a import b`` gives ``a.b``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def package_imports(name: str) -> set[str]:
    parts = (dotted.split(".") for dotted in imports(TREES[name]))
    return {part[1] for part in parts if part[0] == "dim_data" and len(part) > 1 and part[1] in MODULES}


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
    unwanted = {"torchvision", "huggingface_hub", "matplotlib", *(f"dim_data.{name}" for name in PRODUCE)}
    assert loaded & unwanted == set()


def test_public_names_are_importable_and_listed() -> None:
    wanted = {"DistilledDataset", "DistilledLoader", "Generator", "GeneratorConfig", "ImageSpec"}
    wanted |= {"distill", "DistillConfig", "evaluate"}
    assert wanted <= set(dim_data.__all__) <= set(dir(dim_data))
    for name in dim_data.__all__:
        assert getattr(dim_data, name).__name__ == name
    with pytest.raises(AttributeError, match="module 'dim_data' has no attribute 'Trainer'"):
        _ = dim_data.Trainer


def test_no_public_name_hides_a_module() -> None:
    assert not set(dim_data.__all__) & set(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_all_is_sorted_and_exists(name: str) -> None:
    module = __import__(f"dim_data.{name}", fromlist=["__all__"])
    assert sorted(module.__all__) == sorted(set(module.__all__))
    assert all(hasattr(module, public) for public in module.__all__)
    assert module.__doc__


def test_the_readme_table_names_every_module_once() -> None:
    assert Counter(readme_order()) == Counter(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_only_from_those_above_it(name: str) -> None:
    order = readme_order()
    assert name in order, f"{name}.py is not in the README's table"
    below = {other for other in package_imports(name) if other not in order[: order.index(name)]}
    assert not below, f"{name}.py imports {sorted(below)}, which the README's table lists below it"


@pytest.mark.parametrize("name", MODULES)
def test_only_the_produce_half_and_the_command_import_the_produce_half(name: str) -> None:
    if name not in PRODUCE | EDGE:
        assert not package_imports(name) & PRODUCE


def test_the_halves_do_not_know_each_other() -> None:
    assert set(MODULES) >= USE | PRODUCE
    for name in ("dataset", "loader", "passes"):
        assert not package_imports(name) & (PRODUCE | {"real", "augment", "classifiers", "evaluation"})
    for name in PRODUCE:
        assert not package_imports(name) & {"dataset", "loader", "passes", *EDGE}


def test_the_package_imports_its_modules_lazily() -> None:
    top = [node for node in TREES["__init__"].body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert {dotted.split(".")[0] for node in top for dotted in imports(node)} == {"__future__", "importlib", "typing"}


@pytest.mark.parametrize("name", [*MODULES, "__init__"])
def test_what_no_module_does(name: str) -> None:
    tree, roots = TREES[name], {dotted.split(".")[0] for dotted in imports(TREES[name])}
    assert not [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Assert)], (
        "users' mistakes get exceptions"
    )
    assert not roots & {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "yaml"}
    assert name == "hub" or "huggingface_hub" not in roots
    assert name in EDGE or "tqdm" not in roots
    for function, call in calls(tree):
        assert name in EDGE or function not in ("print", "input", "warnings.warn", "sys.stdout.write")
        assert function not in ("eval", "exec", "torch.hub.load")
        if function == "torch.load":
            assert keyword(call, "weights_only") is True
        if function in ("np.load", "numpy.load"):
            assert keyword(call, "allow_pickle") is False
