"""Settings files: found, read, written and refused; and anything at all gives settings or a UsageError."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plans import Jump, Loop, Plan, Pull, Rule, load, refused

from leap.cli import configuration, sources
from leap.errors import UsageError


@pytest.fixture
def write(tmp_path: Path):
    def one(text: str | bytes, name: str = "a.yaml") -> Path:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return one


# Files


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("- 1\n- 2", ["line 1", "not a list"]),
        ("just words", ["line 1", "not a single value"]),
        ("a: 1\nloop:\n  seed: 1\n  seed: 2\n", ["line 4", "loop.seed is given twice", "line 3"]),
        ("loop:\n\tmode: exact", ["line 2", "not YAML", "spaces"]),
        ("loop: {mode: exact", ["not YAML"]),
        ("seed: 1\n---\nseed: 2", ["line 2", "not YAML"]),
        ("x: &a 1\ny: *a", ["line 2", "alias"]),
        ("x: !!python/object:os.system {}", ["line 1", "tag"]),
        ("x: !!int abc", ["line 1", "'abc'", "int"]),
        ("x: " + "9" * 5000, ["line 1", "int"]),
        ("? [a, b]\n: 1", ["line 1", "word"]),
        ('title: "\\ud800"', ["line 1", "str"]),
        ("x: " + "[" * 5000, ["nested"]),
        (b"PK\x03\x04\x00\x00", ["binary"]),
        (b"seed: 1\ntitle: \xff\xfe", ["line 2", "UTF-8", "0xff"]),
        (b"seed: 1\ntitle: \x07", ["line 2", "UTF-8"]),
        (b"#" * (2 << 20), ["1 MiB"]),
    ],
)
def test_a_file_that_is_no_settings_file(write, content: str | bytes, parts: list[str]) -> None:
    message = refused([write(content, "broken.yaml")])
    assert all(part in message for part in ["broken.yaml", *parts]), message


@pytest.mark.parametrize("content", ["", "# nothing\n", "---\n", "\ufeffseed: 0\n"])
def test_a_file_that_says_nothing_changes_nothing(write, content: str) -> None:
    assert load([write(content)]) == Plan()


def test_missing_files_and_folders_are_named_with_what_is_near(write, tmp_path: Path) -> None:
    write("seed: 1", "omniglot.yaml")
    assert "did you mean" in (message := refused([tmp_path / "omnigolt.yaml"])) and "omniglot.yaml" in message
    assert "is a folder" in (message := refused([tmp_path])) and "omniglot.yaml" in message
    assert "not the name" in refused([""])
    both = refused([tmp_path / "absent-1.yaml", tmp_path / "absent-2.yaml"], "--sed", "1")
    assert all(part in both for part in ("absent-1", "absent-2", "did you mean seed?"))


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "elsewhere"
    (root / "learner").mkdir(parents=True)
    (root / "small.yaml").write_text("seed: 7")
    (root / "learner" / "jump.yaml").write_text("learner: {name: jump}")
    monkeypatch.setattr(sources, "_shipped_root", lambda: root)
    monkeypatch.chdir(tmp_path)
    return root


@pytest.mark.parametrize(
    "name", ["configs/learner/jump.yaml", "./configs/learner/jump", "learner/jump.yaml", "learner/jump"]
)
def test_shipped_files_are_found_from_any_folder(shipped: Path, name: str) -> None:
    assert load([name, "small"]) == Plan(learner=Jump(), seed=7)


def test_an_installed_package_finds_its_own(tmp_path: Path) -> None:
    # As a wheel lays it out: configs inside the package, no pyproject.toml beside it.
    shutil.copytree(Path(sources.__file__).parents[1], tmp_path / "leap", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "leap" / "configs" / "learner").mkdir(parents=True)
    (tmp_path / "leap" / "configs" / "__init__.py").touch()
    (tmp_path / "leap" / "configs" / "learner" / "own.yaml").write_text("seed: 1")
    code = "from leap.cli import sources; print(sources.find('configs/learner/own.yaml'), *sources.shipped())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path.parent,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [str(tmp_path / "leap" / "configs" / "learner" / "own.yaml"), "learner/own"]


def test_a_path_comes_before_a_shipped_name(shipped: Path, write) -> None:
    write("seed: 8", "small.yaml")
    assert load(["small.yaml"]).seed == 8


def test_near_shipped_names_are_offered(shipped: Path) -> None:
    assert "did you mean learner/jump?" in refused(["learner/jmp"])
    assert "did you mean learner/jump?" in refused(["jump"])
    assert "configs/learner/jump.yaml" in refused([], "--learner.name", "jump")
    assert "shipped with leap: learner/jump, small" in refused(["zzzzzz"])


def test_an_absolute_path_is_no_shipped_name(shipped: Path) -> None:
    assert "no settings file" in refused(["/small.yaml"])


# Writing settings


PLANS = [
    Plan(),
    Plan(Jump(rate=1e-7), Loop(betas=(1e20, 0.1), clip=2.5, batch=4), folder=Path("runs/a b"), title="1e-3"),
    Plan(meta=Rule(options={"a": [1, 2.0, None, "yes", "null", True], "b": {}, "c": {"d": "x: y # z"}})),
]


@pytest.mark.parametrize("plan", PLANS)
def test_settings_written_as_yaml_load_back_equal(write, plan: Plan) -> None:
    text = configuration.to_yaml(plan)
    assert load([write(text)]) == plan
    assert configuration.to_yaml(load([write(text)])) == text


@given(
    st.text(),
    st.floats(min_value=1e-300, max_value=1e300),
    st.dictionaries(st.text(max_size=5), st.text(max_size=5) | st.floats(allow_nan=False, allow_infinity=False)),
)
@settings(max_examples=150, database=None, deadline=None, derandomize=True)
def test_any_text_and_number_survives_yaml(title: str, rate: float, options: dict[str, Any]) -> None:
    plan = Plan(Pull(rate=rate), meta=Rule(options=options), title=title)
    data = sources.parse(configuration.to_yaml(plan), "text").data
    assert data == configuration.to_dict(plan)


@pytest.mark.parametrize("title", ["yes", "off", "1e3", "0x10", "2026-01-01", "1:30", "~", ""])
def test_written_strings_are_strings_to_other_readers_too(title: str) -> None:
    assert yaml.safe_load(configuration.to_yaml(Plan(title=title)))["title"] == title


def test_field_order_is_kept() -> None:
    names = [line.split(":")[0] for line in configuration.to_yaml(Plan()).splitlines() if not line.startswith(" ")]
    assert names == ["learner", "loop", "meta", "title", "folder", "seed"]


def test_difference_names_paths() -> None:
    a, b = Plan(), Plan(Jump(rate=0.1), seed=1)
    found = configuration.difference(a, b)
    assert ("learner.name", "pull", "jump") in found and ("seed", 0, 1) in found
    assert ("learner.stable", True, None) in found and ("learner.height", None, 3) in found
    assert not [path for path, *_ in found if path == "learner.rate"]
    assert configuration.difference(a, configuration.to_dict(a)) == []


# Anything at all gives settings or a UsageError


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=6),
    st.sampled_from(["pull", "jump", "auto", "exact", "1e-3", "name"]),
)
PATHS = list(configuration.flatten(configuration.to_dict(Plan())))
WORDS = st.sampled_from(sorted({word for path in PATHS for word in path.split(".")} | {"options", "x"}))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS | st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


def attempt(files: list[Path], overrides: list[str]) -> None:
    try:
        plan = load(files, *overrides)
    except UsageError as error:
        assert str(error)
    else:
        assert isinstance(plan, Plan) and plan.learner.rate > 0 and math.isfinite(plan.learner.rate)


def fuzz(examples: int):
    # The file is written anew for each example, so that one folder serves them all.
    checks = [HealthCheck.function_scoped_fixture]
    return settings(max_examples=examples, database=None, deadline=None, derandomize=True, suppress_health_check=checks)


@given(st.dictionaries(WORDS, VALUES, max_size=5), st.booleans())
@fuzz(200)
def test_random_settings_give_a_plan_or_a_usage_error(tmp_path: Path, data: dict[str, Any], flow: bool) -> None:
    file = tmp_path / "random.yaml"
    file.write_text(yaml.safe_dump(data, default_flow_style=flow), encoding="utf-8")
    attempt([file], [])


@given(st.binary(max_size=60) | st.text(alphabet="ab:-[]{}\n \t&*!?#|>'\"%@0.,e", max_size=60).map(str.encode))
@fuzz(300)
def test_random_bytes_give_a_plan_or_a_usage_error(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "random.yaml"
    file.write_bytes(content)
    attempt([file], [])


ODD = [
    "--learner",
    "--loop",
    "--learner.no-stable",
    "--meta.options",
    "--meta.options.x",
    "--",
    "-",
    "-x",
    "--..",
    "--=",
]
FLAGS = st.sampled_from([*(f"--{path}" for path in PATHS), *ODD])


@given(st.lists(FLAGS | SCALARS.map(str) | st.text(max_size=4), max_size=5))
@fuzz(80)
def test_random_words_give_a_plan_or_a_usage_error(words: list[str]) -> None:
    attempt([], words)


def test_a_name_below_a_value_is_refused_in_words(capsys):
    from leap.cli import main

    assert main.main(["train", "--tasks.ways.x", "1"]) == 2
    told = capsys.readouterr().err
    assert "tasks.ways.x" in told and "defect" not in told
