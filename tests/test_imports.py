"""Imports point one way: leap.cli -> tasks -> envs, everything -> the rest of leap. Read off the syntax tree."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = ("leap", "tasks", "envs", "configs", "scripts", "tests")
COMPANIONS = ("learn2learn", "torchvision", "gym")
WITH_COMPANIONS = {"leap/l2l.py", "tasks/taskset.py"}
# What each room may import of ours, by longest prefix.
ALLOWED = {
    "leap": ("leap",),
    "leap.cli": ("leap", "leap.cli", "tasks"),
    "tasks": ("leap", "tasks", "envs"),
    "envs": ("envs",),
}


def modules() -> list[Path]:
    return sorted(file for top in ("leap", "tasks", "envs") for file in (ROOT / top).rglob("*.py"))


def room(module: str) -> str:
    """leap.cli for what lies in or under it, else the top-level name."""
    return "leap.cli" if module == "leap.cli" or module.startswith("leap.cli.") else module.partition(".")[0]


def imported(tree: ast.AST) -> Iterator[str]:
    """Full names of what a file imports, inside functions as well."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where they point"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            yield from (a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str))


def violations(name: str, source: str) -> list[str]:
    """What the file `name` (relative to the checkout) imports though it must not."""
    here = room(name.removesuffix(".py").removesuffix("/__init__").replace("/", "."))
    found = []
    for target in imported(ast.parse(source)):
        top = target.partition(".")[0]
        if top in COMPANIONS and name not in WITH_COMPANIONS:
            found.append(f"{name} imports {target}; only {sorted(WITH_COMPANIONS)} may")
        # python -m leap is the command, so its one file may reach for it; leap.load is found when it is asked for
        doors = {"leap/__main__.py": ("leap.cli",), "leap/__init__.py": ("leap.cli.loading",)}
        through = any(target.startswith(door) for door in doors.get(name, ()))
        if top in OURS and room(target) not in ALLOWED[here] and not through:
            found.append(f"{name} imports {target}; {here} may import {ALLOWED[here]}")
    return found


@pytest.mark.parametrize("file", modules(), ids=lambda file: file.relative_to(ROOT).as_posix())
def test_imports_point_one_way(file: Path) -> None:
    assert not violations(file.relative_to(ROOT).as_posix(), file.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("leap/walk.py", "from leap.cli import settings"),
        ("leap/walk.py", "def f():\n    import tasks.glyphs"),
        ("leap/metrics/path.py", "from leap import cli"),
        ("leap/run.py", "import importlib\nimportlib.import_module('tasks.glyphs')"),
        ("tasks/glyphs.py", "import leap.cli.main"),
        ("envs/atari.py", "import leap.walk"),
        ("leap/cli/main.py", "import envs.atari"),
        ("leap/trainer.py", "import torchvision"),
        ("tasks/omniglot.py", "from learn2learn.data import Taskset"),
        ("leap/cli/main.py", "import tests.conftest"),
    ],
)
def test_the_check_sees_an_import_that_points_the_wrong_way(name: str, source: str) -> None:
    assert len(violations(name, source)) == 1


@pytest.mark.parametrize("module", ["leap", "leap.cli.main"])
def test_the_command_starts_without_heavy_libraries(module: str) -> None:
    heavy = ("torch", "matplotlib", "wandb", "scipy")
    code = f"import sys, {module}; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
