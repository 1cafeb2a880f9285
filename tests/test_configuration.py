"""Settings from YAML and the command line: what is right is read, what is wrong is refused, all of it at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from plans import Demanding, Inside, Jump, Loop, Plan, Pull, Rule, load, refused

from leap.cli import configuration


@pytest.fixture
def write(tmp_path: Path):
    def one(text: str | bytes, name: str = "a.yaml") -> Path:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return one


# What is right


def test_no_file_gives_the_defaults() -> None:
    assert load() == Plan()


def test_a_file_changes_only_what_it_names(write) -> None:
    plan = load([write("loop: {meta_steps: 5}\nmeta: {options: {momentum: 0.9}}\nfolder: runs/x\n")])
    assert plan == Plan(loop=Loop(meta_steps=5), meta=Rule(lr=0.5, options={"momentum": 0.9}), folder=Path("runs/x")), (
        "the section's own default (lr 0.5) stays as well"
    )


def test_later_files_win_and_mappings_merge(write) -> None:
    first = write("loop: {meta_steps: 5, mode: exact}", "1.yaml")
    second = write("loop: {meta_steps: 6}\nseed: 2", "2.yaml")
    assert load([first, second]) == Plan(loop=Loop(meta_steps=6, mode="exact"), seed=2)
    assert load([second, first]).loop.meta_steps == 5


@pytest.mark.parametrize("early", ["learner: {rate: 0.7}", "learner: {name: pull, rate: 0.7}"])
def test_values_of_one_learner_do_not_leak_into_another(write, early: str) -> None:
    assert load([write(early, "1.yaml"), write("learner: {name: jump}", "2.yaml")]).learner == Jump(rate=0.4)
    assert load([write(early, "1.yaml"), write("learner: {name: pull}", "2.yaml")]).learner == Pull(rate=0.7)


@pytest.mark.parametrize(
    ("text", "value"), [("1e-3", 1e-3), ("1E3", 1000.0), ("2", 2.0), (".5", 0.5), ("+1.5e+2", 150.0), ("1_000", 1000.0)]
)
def test_numbers_as_people_write_them(write, text: str, value: float) -> None:
    rate = load([write(f"learner: {{rate: {text}}}")]).learner.rate
    assert rate == value and isinstance(rate, float)
    assert load([], "--learner.rate", text.replace("_", "")).learner.rate == value


@pytest.mark.parametrize("flag", ["--loop.meta-steps", "--loop.meta_steps"])
def test_flags_take_dashes_and_underscores(write, flag: str) -> None:
    file = write("loop: {meta_steps: 5, mode: exact}")
    assert load([file], flag, "7").loop == Loop(meta_steps=7, mode="exact")
    assert load([file], f"{flag}=7").loop == Loop(meta_steps=7, mode="exact")
    assert load([file], flag, "7", flag, "8").loop.meta_steps == 8, "the last one wins"


@pytest.mark.parametrize(
    ("words", "change"),
    [
        (["--loop.betas", "0.5", "-1e-3"], {"loop": Loop(betas=(0.5, -0.001))}),
        (["--loop.widths", "7"], {"loop": Loop(widths=(7,))}),
        (["--loop.widths"], {"loop": Loop(widths=())}),
        (["--loop.widths", "[7, 8]"], {"loop": Loop(widths=(7, 8))}),
        (["--loop.widths=[7]"], {"loop": Loop(widths=(7,))}),
        (["--loop.widths", "[7,", "8]"], {"loop": Loop(widths=(7, 8))}),
        (["--loop.widths", "[]"], {"loop": Loop(widths=())}),
        (["--loop.betas", "[.5, -1e-3]"], {"loop": Loop(betas=(0.5, -0.001))}),
        (["--title", "[a]"], {"title": "[a]"}),
        (["--meta.options.betas", "[0.1,", "0.2]"], {"meta": Rule(lr=0.5, options={"betas": [0.1, 0.2]})}),
        (["--meta.options.widths", "[1,2]", "[3]"], {"meta": Rule(lr=0.5, options={"widths": [[1, 2], [3]]})}),
        (["--loop.clip", "3"], {"loop": Loop(clip=3.0)}),
        (["--loop.clip", "null"], {}),
        (["--loop.batch", "12"], {"loop": Loop(batch=12)}),
        (["--loop.batch", "auto"], {}),
        (["--learner.no-stable"], {"learner": Pull(stable=False)}),
        (["--learner.stable", "false"], {"learner": Pull(stable=False)}),
        (["--learner.stable"], {}),
        (["--learner.name", "pull"], {}),
        (["--meta.name", "Adam", "--title", "-x=y z"], {"meta": Rule("Adam", 0.5), "title": "-x=y z"}),
        (["--seed=-4"], {"seed": -4}),
        (
            ["--meta.options.betas", "0.1", "0.2", "--meta.options.weight-decay", "1e-4"],
            {"meta": Rule(lr=0.5, options={"betas": [0.1, 0.2], "weight_decay": 1e-4})},
        ),
        (["--meta.options", "{nesterov: true}"], {"meta": Rule(lr=0.5, options={"nesterov": True})}),
    ],
)
def test_the_command_line_reads_every_kind_of_field(words: list[str], change: dict[str, Any]) -> None:
    assert load([], *words) == Plan(**change)


def test_only_the_chosen_learner_has_flags(write) -> None:
    file = write("learner: {name: jump}")
    assert load([file], "--learner.height", "9").learner == Jump(height=9)
    assert "no such setting" in refused([file], "--learner.stable", "true")


def test_a_table_in_a_file_is_added_to(write) -> None:
    file = write("meta: {options: {momentum: 0.9, empty: [], deep: {a: [1, x]}}}")
    options = load([file], "--meta.options.momentum", "0.8", "--seed", "1").meta.options
    assert options == {"momentum": 0.8, "empty": [], "deep": {"a": [1, "x"]}}


# What is wrong


def test_everything_wrong_is_said_at_once(write) -> None:
    file = write("loop:\n  meta_step: 5\n  clip: -1\nlearner:\n  rate: fast\nsed: 3\n")
    message = refused([file], "--loop.mode", "exakt", "--seed", "x", "--tittle", "t", "--loop.widths", "3", "0")
    lines = message.splitlines()[1:]
    expected = {
        "loop.meta_step": ("line 2", "5", "loop.meta_steps"),
        "loop.clip": ("line 3", "-1", "greater than 0"),
        "learner.rate": ("line 5", '"fast"', "a number"),
        "sed": ("line 6", "3", "did you mean seed?"),
        "loop.mode": ("command line", "exakt", "did you mean exact?"),
        "seed": ("command line", '"x"', "an integer"),
        "tittle": ("command line", "t", "did you mean title?"),
        "loop.widths.1": ("command line", "0", "greater than or equal to 1"),
    }
    assert len(lines) == len(expected)
    for path, parts in expected.items():
        line = next(line for line in lines if line.startswith(f"  {path} ("))
        assert all(part in line for part in parts), line


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("seed: abc", ["seed", '"abc"', "an integer"]),
        ("seed: true", ["seed", "true", "an integer"]),
        ("seed: 1.0", ["seed", "1.0", "an integer"]),
        ("seed: 010", ["seed", "an integer"]),
        ("learner: {rate: true}", ["learner.rate", "true", "a number"]),
        ("learner: {rate: '0.1'}", ["learner.rate", '"0.1"', "without quotes"]),
        ("learner: {rate: .inf}", ["learner.rate", "Infinity", "finite"]),
        ("learner: {rate: 1e999}", ["learner.rate", "Infinity", "finite"]),
        ("learner: {rate: .nan}", ["learner.rate", "NaN", "finite"]),
        ("learner: {rate: 0}", ["learner.rate", "0", "greater than 0"]),
        ("learner: {stable: 'true'}", ["learner.stable", '"true"', "true or false"]),
        ("learner: {stable: yes}", ["learner.stable", '"yes"', "true or false"]),
        ("learner: {name: jmp}", ["learner.name", '"jmp"', "pull, jump", "did you mean jump?"]),
        ("learner: jump", ["learner", '"jump"', "mapping"]),
        ("learner: {name: jump, stable: true}", ["learner.stable", "no such setting"]),
        ("learner:", ["learner", "null", "mapping"]),
        ("loop: 3", ["loop", "3", "mapping"]),
        ("loop: {betas: [0.1]}", ["loop.betas", "[0.1]", "2 values"]),
        ("loop: {betas: [0.1, 0.2, 0.3]}", ["loop.betas", "at most 2"]),
        ("loop: {betas: [0.1, x]}", ["loop.betas.1", '"x"', "a number"]),
        ("loop: {betas: 0.1}", ["loop.betas", "0.1", "a list"]),
        ("loop: {batch: 1.5}", ["loop.batch", "1.5", "an integer or 'auto'"]),
        ("meta_lr: 3", ["meta_lr", "did you mean meta.lr?"]),
        ("meta_steps: 3", ["meta_steps", "did you mean loop.meta_steps?"]),
        ("zzz: 3", ["zzz", "known: learner, loop, meta, title, folder, seed"]),
        ("title: 3", ["title", "a string"]),
        ("title: null", ["title", "null", "a string"]),
        ("1: x", ["1", "no such setting"]),
        ("seed: 20", ["seed", "20 is above loop.meta_steps (10)"]),
    ],
)
def test_a_wrong_value_in_a_file(write, text: str, parts: list[str]) -> None:
    message = refused([write(text)])
    assert all(part in message for part in parts), message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--learner.rate", "-1"], ["learner.rate", "-1", "greater than 0"]),
        (["--learner.rate", "nan"], ["learner.rate", "NaN", "finite"]),
        (["--learner.rate", "inf"], ["learner.rate", "finite"]),
        (["--learner.rate"], ["learner.rate", "has no value"]),
        (["--learner.rate", "1", "2"], ["learner.rate", "[1, 2]", "a number"]),
        (["--learner.stable", "maybe"], ["learner.stable", '"maybe"', "true or false"]),
        (["--learner.name", "jump"], ["learner.name", "a flag cannot switch", "learner: {name: jump}"]),
        (["--learner", "jump"], ["a flag cannot switch", "learner: {name: jump}"]),
        (["--learner.name", "jmp"], ["learner.name", "did you mean jump?", "YAML file"]),
        (["--loop", "3"], ["loop", "is a section", "loop.meta_steps"]),
        (["--loop.meta-stps", "3"], ["loop.meta_stps", "did you mean loop.meta_steps?"]),
        (["--loop.betas", "1"], ["loop.betas", "[1]", "2 values"]),
        (["--loop.betas", "[1, x]"], ["loop.betas.1", '"x"', "a number"]),
        (["--loop.widths", "x"], ["loop.widths.0", '"x"', "an integer"]),
        (["--loop.widths", "[3, 0]"], ["loop.widths.1", "0", "greater than or equal to 1"]),
        (["--seed", "[3]"], ["seed", "[3]", "an integer"]),
        (["--seed", "1e3"], ["seed", "an integer"]),
        (["--otu", "x"], ["did you mean --out?"]),
        (["--meta.options.x"], ["meta.options.x", "has no value"]),
        (["--meta.options", "3"], ["meta.options", "3", "mapping"]),
        (["stray"], ["'stray'", "belongs to no setting"]),
        (["--title", "\udcff"], ["not UTF-8"]),
        (["--", "x"], ["no such setting"]),
        (["--seed", "11"], ["11 is above loop.meta_steps (10)"]),
    ],
)
def test_a_wrong_value_on_the_command_line(words: list[str], parts: list[str], capsys: pytest.CaptureFixture) -> None:
    message = refused([], *words, flags=("--out", "--resume"))
    assert all(part in message for part in parts), message
    assert len(message.splitlines()) == 1
    assert capsys.readouterr() == ("", ""), "one message, and it is the exception's"


def test_flags_of_a_learner_that_could_not_be_told_are_not_held_against_another(write) -> None:
    message = refused([write("learner: {name: jmp}")], "--learner.height", "3", "--seed", "x")
    assert "learner.name" in message and "seed" in message and "height" not in message


def test_a_cross_check_does_not_speak_of_values_already_refused(write) -> None:
    assert "is above" not in refused([write("loop: {meta_steps: -5}\nseed: 20")])
    assert "is above" in refused([write("title: 3\nseed: 20")])


def test_a_value_without_default_comes_from_a_file(write) -> None:
    assert load([write("inside: {size: 3}")], "--seed", "2", schema=Demanding) == Demanding(Inside(3), seed=2)
    assert "inside.size (default): is missing" in refused(schema=Demanding)


# Help


def test_help_has_docstrings_values_and_what_a_file_can_choose(write) -> None:
    plan = load([write("learner: {name: jump, rate: 0.77}\nmeta: {options: {momentum: 0.25}}")])
    text = configuration.help_for(Plan, plan, prog="leap train")
    for part in ("How high.", "--learner.height", "0.77", "--loop.meta-steps", "others: pull", "meta.options", "0.25"):
        assert part in text
    assert "A list takes several words, or one as a file has it" in text
    assert "Whether rises count as falls." not in text
    assert "--learner.stable" in configuration.help_for(Plan)


def test_configuration_does_not_import_torch() -> None:
    code = "import sys, leap.cli.configuration; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
