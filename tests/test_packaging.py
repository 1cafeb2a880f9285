"""The installed package holds what the checkout holds, and the set-up files agree with each other."""

from __future__ import annotations

import configparser
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def setup_cfg() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def pins(file: str) -> dict[str, Requirement]:
    lines = [line.split(" --")[0].strip() for line in (ROOT / file).read_text().splitlines()]
    found = [Requirement(line) for line in lines if line and not line.startswith(("#", "-e"))]
    return {requirement.name.lower(): requirement for requirement in found}


def test_every_folder_with_code_is_a_package_of_the_wheel(setup_cfg: configparser.ConfigParser) -> None:
    listed = setup_cfg["options"]["packages"].split()
    mapped = dict(line.split(" = ") for line in setup_cfg["options"]["package_dir"].strip().splitlines())
    by_folder = {folder: package for package, folder in mapped.items()}
    found = set()
    for top in ("leap", "envs", "tasks", "configs"):
        for file in (ROOT / top).rglob("__init__.py"):
            folder = file.parent.relative_to(ROOT).as_posix()
            found.add(by_folder.get(folder, folder.replace("/", ".")))
    assert sorted(listed) == sorted(found)


def test_every_folder_with_modules_has_an_init() -> None:
    bare = {
        file.parent.relative_to(ROOT).as_posix()
        for top in ("leap", "envs", "tasks")
        for file in (ROOT / top).rglob("*.py")
        if not (file.parent / "__init__.py").exists()
    }
    assert not bare, "the wheel would leave these out"


def test_every_configuration_file_is_package_data(setup_cfg: configparser.ConfigParser) -> None:
    pattern = setup_cfg["options.package_data"]["leap.configs"].strip()
    shipped = set((ROOT / "configs").glob(pattern))
    files = {file for file in (ROOT / "configs").rglob("*") if file.is_file() and "__pycache__" not in file.parts}
    assert shipped, "there is nothing to ship"
    assert {file.name for file in files - shipped} <= {"__init__.py"}


def test_every_file_in_c_is_package_data(setup_cfg: configparser.ConfigParser) -> None:
    for package in ("leap", "tasks"):
        patterns = [part.strip() for part in setup_cfg["options.package_data"][package].split(",")]
        files = {file for file in (ROOT / package).rglob("*") if file.suffix in (".c", ".h")}
        shipped = {file for pattern in patterns for file in (ROOT / package).glob(pattern)}
        assert files, "nothing is there to be shipped"
        assert files <= shipped


def test_what_is_pinned_satisfies_the_ranges_and_nothing_is_missing(project: dict) -> None:
    pinned = pins("requirements.txt")
    groups = project["project"]["optional-dependencies"]
    wanted = [*project["project"]["dependencies"], *groups["dev"]]
    ranges = {requirement.name.lower(): requirement for requirement in map(Requirement, wanted)}
    assert pinned.keys() == ranges.keys()
    for name, requirement in pinned.items():
        (pin,) = requirement.specifier
        assert pin.operator == "==", name
        assert ranges[name].specifier.contains(pin.version), name


def test_the_oldest_versions_tested_are_the_lower_ends_of_the_ranges(project: dict) -> None:
    oldest = pins("constraints.txt")
    wanted = project["project"]["dependencies"]
    for requirement in map(Requirement, wanted):
        (lower,) = (Version(s.version) for s in requirement.specifier if s.operator == ">=")
        (pin,) = oldest[requirement.name.lower()].specifier
        # The same release, in whatever patch of it was tested.
        assert Version(pin.version).release[: len(lower.release)] == lower.release, requirement.name


def test_uv_and_pip_install_the_same_learn2learn(project: dict) -> None:
    pip, uv = pins("requirements-learn2learn.txt"), project["dependency-groups"]["learn2learn"]
    for requirement in map(Requirement, uv):
        assert not requirement.specifier or requirement.specifier == pip[requirement.name].specifier
    assert pip.keys() == {Requirement(line).name for line in uv}


def test_the_command_in_the_metadata_exists(project: dict) -> None:
    module, _, function = project["project"]["scripts"]["leap"].partition(":")
    code = f"import importlib; assert callable(importlib.import_module({module!r}).{function})"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_the_citation_names_the_version(project: dict) -> None:
    cited = re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert cited is not None
    assert cited[1] == project["project"]["version"]


@pytest.mark.parametrize("script", ["scripts/quickstart", "scripts/test", ".ci/run"])
def test_scripts_can_be_called_as_they_are(script: str) -> None:
    file = ROOT / script
    assert file.stat().st_mode & 0o111, f"{script} is not executable"
    subprocess.run(["bash", "-n", str(file)], check=True)
