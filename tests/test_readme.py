"""What the README shows is what runs."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from shared_runs import small

from leap.cli import main
from leap.testing import check_family

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def block(words):
    """The one example that holds these words."""
    (found,) = (one for one in BLOCKS if words in one)
    return found


def test_the_python_example_runs(capsys):
    names = {}
    exec(compile(block("learners.maml()"), "README.md", "exec"), names)
    assert names["walked"].results["leap"].shape == (5, names["family"].layout.n)
    assert names["walked"].results["length"].shape == (5,)


def test_the_distances_shown_can_be_computed():
    exec(compile(block("fisher_task_distance("), "README.md", "exec"), {})
    assert len(BLOCKS) == 5  # every example is run by a test here


def test_the_scores_shown_can_be_computed():
    names = {}
    exec(compile(block("h_score(features"), "README.md", "exec"), names)
    score, share = (float(names[name](names["features"], names["labels"])) for name in ("h_score", "transferability"))
    assert 0 < score <= 2 and share == score / 2


def test_a_family_of_ones_own_keeps_the_contract_and_meta_trains(tmp_path):
    source = tmp_path / "ellipses.py"
    source.write_text(block("class Ellipses"))
    names = {}
    exec(compile(block("class Ellipses"), "README.md", "exec"), names)
    torch.manual_seed(0)
    check_family(names["Ellipses"]())
    config = tmp_path / "ellipses.yaml"
    config.write_text(
        f"tasks: {{name: custom, source: '{source}:Ellipses', options: {{count: 12}}}}\ninner: {{lr: 0.05}}\n"
    )
    out = tmp_path / "run"
    small = ["--train.meta-steps", "3", "--train.inner-steps", "4", "--train.meta-batch", "3", "--tracking", "none"]
    assert main.main(["train", str(config), "--out", str(out), *small]) == 0
    assert main.main(["evaluate", str(out), "--evaluate.steps", "3", "--evaluate.repetitions", "1"]) == 0
    assert (out / "evaluation.json").exists()


def test_a_learned_initialization_starts_an_ordinary_training_script(tmp_path, monkeypatch):
    small(tmp_path / "runs" / "first", "glyphs")
    monkeypatch.chdir(tmp_path)
    images, labels = torch.rand(6, 1, 28, 28), torch.arange(6) % 3
    names = {"batches": [(images, labels)] * 10}
    exec(compile(block("leap.load("), "README.md", "exec"), names)
    assert (names["module"](images).argmax(-1) == labels).all()


def test_every_command_shown_exists(capsys):
    for command in set(re.findall(r"^leap (\w+)", README, re.MULTILINE)):
        assert main.main([command, "--help"]) == 0
        assert f"leap {command}" in capsys.readouterr().out


@pytest.mark.parametrize("path", sorted(set(re.findall(r"configs/[\w/-]+\.yaml|docs/\w+\.md|\b[A-Z]+\.md", README))))
def test_every_file_named_exists(path):
    assert (ROOT / path).exists()


def test_the_learners_listed_are_those_there_are():
    listed = re.search(r"`configs/learner/\*.yaml` \| (.*) \|", README)[1]
    assert set(re.findall(r"`(\w+)`", listed)) == {p.stem for p in (ROOT / "configs" / "learner").glob("*.yaml")}


def test_the_method_runs_from_the_source_tree_without_the_command_line_packages():
    """The method needs torch alone; nothing of the command line is imported with it."""
    code = "import sys, leap.trainer, leap.evaluate, leap.run; "
    code += "print([m for m in sys.modules if m in ('tyro', 'pydantic', 'wandb', 'matplotlib')])"
    told = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"
