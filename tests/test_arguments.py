"""The words after `leap COMMAND` told apart: files, options, settings."""

from __future__ import annotations

from pathlib import Path

import pytest
from plans import Plan

from leap.cli import configuration
from leap.cli.arguments import Option, help_text, split
from leap.errors import UsageError

OPTIONS = [
    Option("--out", "path", "Run folder.", "DIR"),
    Option("--group", "value", "Group."),
    Option("--print-config", "flag", "Show the settings."),
    Option("--learners", "values", "Learners.", "NAME"),
]


@pytest.mark.parametrize(
    "line",
    [
        "a.yaml b.yaml --out r --seed 3 --loop.betas 1 -2",
        "--out=r a.yaml --seed 3 b.yaml --loop.betas 1 -2",
        "--seed 3 --loop.betas 1 -2 a.yaml --out r b.yaml",
        "--out r --seed 3 --loop.betas 1 -2 -- a.yaml b.yaml",
    ],
)
def test_files_options_and_settings_in_any_order(line: str) -> None:
    found = split(line.split(), OPTIONS)
    assert found.files == ["a.yaml", "b.yaml"]
    assert found.options == {"out": Path("r"), "group": None, "print_config": False, "learners": None, "help": False}
    assert found.overrides == ["--seed", "3", "--loop.betas", "1", "-2"]


def test_every_kind_of_option() -> None:
    line = "--print_config --learners leap reptile --group=a=b -h --seed=-3 x"
    found = split(line.split(), OPTIONS)
    assert found.options["learners"] == ["leap", "reptile"] and found.options["group"] == "a=b"
    assert found.options["print_config"] is True and found.options["help"] is True
    assert found.overrides == ["--seed=-3"] and found.files == ["x"]


def test_a_setting_that_lists_files_takes_every_word_up_to_the_next_option() -> None:
    found = split(["x.yaml", "--compare.learners", "a.yaml", "leap", "b.yml", "--seed", "3", "y.yaml"], OPTIONS)
    assert found.files == ["x.yaml", "y.yaml"]
    assert found.overrides == ["--compare.learners", "a.yaml", "leap", "b.yml", "--seed", "3"]
    found = split(["--compare.learners=a.yaml", "y.yaml", "--compare.seeds", "0", "z.yaml"], OPTIONS)
    assert found.files == ["y.yaml", "z.yaml"]
    assert split(["--compare.learners", "a.yaml", "--", "y.yaml"], OPTIONS).files == ["y.yaml"]


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("--out", ["--out needs a value", "DIR", "Run folder."]),
        ("--out --seed 3", ["--out needs a value"]),
        ("--out=", ["--out needs a value"]),
        ("--learners --out r", ["--learners needs a value"]),
        ("--out r --out s", ["--out is given twice"]),
        ("--print-config --print_config", ["given twice"]),
        ("--print-config=yes", ["takes no value", "'yes'"]),
        ("-o r", ["unknown option -o"]),
    ],
)
def test_options_given_wrongly(line: str, parts: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        split(line.split(), OPTIONS)
    assert all(part in str(caught.value) for part in parts)


def test_a_command_without_settings_refuses_other_options() -> None:
    with pytest.raises(UsageError, match="did you mean --out"):
        split(["runs/a", "--outt", "x"], OPTIONS, fields=False)


def test_help_text_joins_options_and_settings() -> None:
    text = help_text("leap train FILES...", "Train.", OPTIONS, configuration.help_for(Plan, prog="leap train"))
    assert text.count("usage:") == 1
    for part in ("--out DIR", "Run folder.", "--learners NAME ...", "--loop.meta-steps", "Updates of the start."):
        assert part in text
