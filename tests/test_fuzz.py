"""Malformed inputs end in one message and change nothing; the judge of `scripts/fuzz.py`; and nothing unpickles."""

from __future__ import annotations

import ast
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from leap.errors import RunError, UsageError

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

from fuzz_box import FOLDER, LINK, PIPE, Box, Input, added_command  # noqa: E402
from fuzz_inputs import EVIL, MARKER, Evil  # noqa: E402
from fuzz_kinds import KINDS, Inputs  # noqa: E402
from fuzz_runs import originals, without_expense  # noqa: E402


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    with without_expense():
        return originals(tmp_path_factory.mktemp("originals"), small=True)


@pytest.fixture
def box(tmp_path, files):
    return Box(tmp_path / "box", files, seconds=10)


# The short form


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_malformed_inputs_end_in_one_message_and_change_nothing(kind: str, box: Box, files) -> None:
    """Sixty of each kind; `scripts/fuzz.py` runs as many as one likes, of more kinds of run."""
    inputs = Inputs(7, files, [kind])
    before = {path: content for path, content in box.originals.items()}
    with without_expense():
        for number in range({"start": 12, "folders": 60}.get(kind, 40)):
            given = inputs[number]
            outcome = box.run(given)
            assert outcome.problem is None, (number, given.words, outcome)
    assert all((box.root / path).read_bytes() == content for path, content in before.items())


def test_inputs_are_the_same_for_the_same_seed_and_number(files) -> None:
    assert [Inputs(1, files)[n] for n in range(5)] == [Inputs(1, files)[n] for n in range(5)]
    assert [Inputs(1, files)[n] for n in range(5)] != [Inputs(2, files)[n] for n in range(5)]


@pytest.mark.parametrize("what", [FOLDER, LINK, PIPE])
@pytest.mark.parametrize("name", ["config.yaml", "provenance.json", "metrics.jsonl", "evaluation.json"])
def test_what_is_no_file_is_refused_or_does_not_matter(what: str, name: str, box: Box) -> None:
    for command in (("train", "--resume", "done"), ("report", "done"), ("export", "done", "--to", "new")):
        with without_expense():
            given = Input("place", command, {f"done/{name}": what}, ("report.html", "new"))
            assert box.run(given).problem is None, command


# The judge


def planted(box: Box, body, words: Sequence[str] = ("planted",), **fields) -> str | None:
    with added_command("planted", body):
        return box.run(Input("planted", tuple(words), **fields)).problem


def refuse(change=lambda: None, message: str = "no"):
    def body(argv):
        change()
        raise UsageError(message)

    return body


def fail(error: BaseException):
    def body(argv):
        raise error

    return body


def test_a_refusal_and_a_success_are_no_findings(box: Box) -> None:
    assert planted(box, refuse()) is None and planted(box, lambda argv: 0) is None
    assert planted(box, fail(RunError("it broke"))) is None


def spin(argv):
    while True:
        pass


def leave(name: str, content: str = "x"):
    return lambda: Path(name).write_text(content)


def traced(argv):
    print("Traceback (most recent call last):\n  ...", file=sys.stderr)
    raise UsageError("no")


def twice(argv):
    print("leap: one", file=sys.stderr)
    raise UsageError("two")


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (fail(ZeroDivisionError("x")), "a defect: cli/main.py"),
        (fail(SystemExit(3)), "exit code 3"),
        (lambda argv: 75, "exit code 75"),
        (fail(GeneratorExit()), "GeneratorExit at"),
        (fail(MemoryError()), "out of memory"),
        (traced, "a traceback"),
        (twice, "2 messages with exit code 2"),
        (lambda argv: 1, "0 messages with exit code 1"),
        (refuse(lambda: print("x" * 7000, file=sys.stderr)), "a message of 7 thousand characters"),
        (refuse(lambda: print("a\x1b[2J", file=sys.stderr)), "the control character '\\x1b'"),
        (refuse(leave("done/new")), "exit code 2, and changed done/new"),
        (refuse(leave("done/config.yaml")), "changed done/config.yaml"),
        (refuse(lambda: os.remove("done/config.yaml")), "changed done/config.yaml"),
        (refuse(lambda: os.mkdir("done/empty")), "changed done/empty"),
        (refuse(lambda: os.symlink("x", "done/link")), "changed done/link"),
        (refuse(leave("../escaped")), "changed a/escaped"),
        (refuse(leave("../../escaped")), "changed escaped"),
        (lambda argv: leave("done/config.yaml")() and 0, "exit code 0, and changed done/config.yaml"),
    ],
)
def test_what_is_planted_is_found_and_put_right(body, found: str, box: Box) -> None:
    before = box._state()
    assert found in (planted(box, body) or "nothing")
    assert box._state().keys() == before.keys()
    assert all((box.root / path).read_bytes() == content for path, content in box.originals.items())
    assert planted(box, refuse()) is None


def test_a_hang_of_the_processor_and_one_of_the_clock_are_found(tmp_path: Path) -> None:
    box = Box(tmp_path / "box", {"done/x": b""}, seconds=0.1, patience=60)
    assert "takes longer than 0.1 s" in (planted(box, spin) or "")
    box.patience = 0.2
    assert planted(box, lambda argv: time.sleep(60)) == "exit code 75"


def test_where_a_command_may_write_it_may_only_where_it_does_not_refuse(box: Box) -> None:
    assert planted(box, lambda argv: leave("done/new")() and 0, writes=("done/new",)) is None
    assert planted(box, refuse(leave("done/new")), writes=("done/new",)) is not None


def test_a_page_that_shows_what_it_should_escape_is_found(box: Box) -> None:
    fields = {"writes": ("page.html",), "page": "page.html", "marker": MARKER}
    assert planted(box, lambda argv: leave("page.html", f"<p>{MARKER}</p>")() and 0, **fields)
    assert planted(box, lambda argv: leave("page.html", "<p>&lt;script</p>")() and 0, **fields) is None


def test_what_is_unpickled_would_leave_a_file_behind_and_be_found(box: Box) -> None:
    import pickle

    def body(argv):
        pickle.loads(pickle.dumps(Evil())).close()
        return 0

    assert planted(box, body) == f"exit code 0, and changed {EVIL}"


# Nothing executes what a file holds

FORBIDDEN = ("pickle", "marshal", "shelve", "dill", "joblib", "cloudpickle", "runpy", "code", "imp")
CALLS = ("eval", "exec", "compile", "execfile", "os.system", "os.popen", "yaml.unsafe_load", "yaml.full_load")
EXCUSED = {
    "scripts/fuzz_inputs.py: pickle": "writes pickles that must not be read",
}


def executes(name: str, source: str) -> list[str]:
    """What of a module would execute, or could execute, what a file holds."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.partition(".")[0] in FORBIDDEN]
        elif isinstance(node, ast.ImportFrom):
            found += [str(node.module)] if str(node.module).partition(".")[0] in FORBIDDEN else []
        elif isinstance(node, ast.Call):
            found += _call(node)
    return [f"{name}: {what}" for what in found if f"{name}: {what}" not in EXCUSED]


def _call(node: ast.Call) -> list[str]:
    called = ast.unparse(node.func)
    given = {word.arg: ast.unparse(word.value) for word in node.keywords}
    if called in CALLS or given.get("shell") == "True" or called.endswith((".extractall", ".extract", ".read_pickle")):
        return [called]
    if called == "torch.load" and given.get("weights_only") != "True":
        return [called]
    if called.endswith(("np.load", "numpy.load", "read_array")) and given.get("allow_pickle", "False") != "False":
        return [called]
    if called in ("yaml.load", "yaml.load_all", "yaml.compose") and "Safe" not in (loader := given.get("Loader", "")):
        return [] if called == "yaml.compose" and loader == "_Loader" else [called]
    return []


def test_nothing_of_ours_executes_what_a_file_holds() -> None:
    modules = [path for top in ("leap", "tasks", "envs", "scripts") for path in sorted((ROOT / top).rglob("*.py"))]
    assert len(modules) > 200
    found = [what for path in modules for what in executes(path.relative_to(ROOT).as_posix(), path.read_text())]
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle", "from pickle import loads", "import joblib.numpy_pickle", "torch.load(path)", "eval(text)",
        "torch.load(path, weights_only=False)", "np.load(path, allow_pickle=True)", "yaml.load(x, Loader=yaml.Loader)",
        "yaml.load(text)", "exec(text)", "archive.extractall(folder)", "subprocess.run(text, shell=True)",
        "def f():\n    import marshal", "yaml.unsafe_load(text)", "np.load(path, allow_pickle=yes)",
    ],
)  # fmt: skip
def test_what_would_execute_is_found(source: str) -> None:
    assert executes("leap/x.py", source)


@pytest.mark.parametrize(
    "source",
    [
        "torch.load(path, weights_only=True)",
        "np.load(path, allow_pickle=False)",
        "np.load(path)",
        "yaml.safe_load(text)",
    ],
)
def test_what_does_not_execute_is_let_be(source: str) -> None:
    assert not executes("leap/x.py", source)
