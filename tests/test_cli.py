"""The command `leap`: what it finds, how quickly it answers, and how it ends when something goes wrong."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import leap
from leap.cli import main as cli
from leap.errors import RunError, UsageError

ROOT = Path(leap.__file__).parents[1]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[list[str]], Any]], None]:
    """Stand in for `leap train` with a function."""

    def stand_in(body: Callable[[list[str]], Any]) -> None:
        module = types.ModuleType("stand_in")
        module.main = body  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "stand_in", module)
        monkeypatch.setitem(cli.COMMANDS, "train", ("stand_in", "a stand-in"))

    return stand_in


def failing(error: BaseException) -> Callable[[list[str]], int]:
    def body(_: list[str]) -> int:
        raise error

    return body


def process(*words: str, **keywords: Any) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    line = [sys.executable, *words]
    return subprocess.run(line, capture_output=True, text=True, check=False, env=environment, **keywords)


def test_help_is_quick_and_imports_nothing_heavy(tmp_path: Path) -> None:
    times = []
    for _ in range(3):
        start = time.perf_counter()
        done = process("-m", "leap", "--help", cwd=tmp_path)
        times.append(time.perf_counter() - start)
        assert done.returncode == 0 and done.stderr == ""
        assert all(name in done.stdout for name in ("train", "evaluate", "compare", "report", "fetch"))
    assert min(times) < 0.5


def test_import_leap_is_light_and_reaches_every_part(tmp_path: Path) -> None:
    code = (
        "import sys, leap; heavy = {'torch', 'numpy', 'matplotlib', 'wandb', 'scipy', 'pydantic', 'tyro'};"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules);"
        "assert callable(leap.walk.walk) and callable(leap.layout.Layout.of) and callable(leap.learners.leap);"
        "assert 'torch' in sys.modules and 'trainer' in dir(leap)"
    )
    done = process("-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_an_unknown_part_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'wlak'"):
        _ = leap.wlak


def test_every_listed_command_exists() -> None:
    for module, about in cli.COMMANDS.values():
        assert (ROOT / f"{module.replace('.', '/')}.py").is_file() and about


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"leap {leap.__version__}\n"


def test_no_command_shows_the_help_and_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    assert "usage: leap" in capsys.readouterr().err


@pytest.mark.parametrize(("word", "hint"), [("trian", "did you mean train?"), ("zzz", "known: train")])
def test_an_unknown_command(word: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([word]) == 2
    assert hint in capsys.readouterr().err


def test_a_command_gets_its_words_and_gives_the_code(command) -> None:
    seen: list[list[str]] = []
    command(lambda words: seen.append(words) or 3)
    assert cli.main(["train", "a.yaml", "--debug", "--seed", "3"]) == 3
    assert seen == [["a.yaml", "--seed", "3"]]
    command(lambda words: None)
    assert cli.main(["train"]) == 0


@pytest.mark.parametrize(
    ("error", "code", "parts"),
    [
        (UsageError("seed: got x"), 2, ["seed: got x"]),
        (RunError("checkpoint damaged"), 1, ["checkpoint damaged"]),
        (KeyboardInterrupt(), 130, ["interrupted"]),
        (OSError(errno.ENOSPC, "No space left on device", "runs/x"), 1, ["runs/x", "No space left", "free some space"]),
        (OSError(errno.EROFS, "Read-only file system", b"runs/x"), 1, ["runs/x", "Read-only", "another"]),
        (PermissionError(errno.EACCES, "Permission denied", "runs/x"), 1, ["runs/x", "denied", "permissions"]),
        (OSError("odd"), 1, ["odd", "--debug"]),
        (MemoryError(), 1, ["out of memory", "--train.meta-batch"]),
        (ModuleNotFoundError("No module named 'x'", name="x.y"), 1, ["x.y is not installed"]),
        (ModuleNotFoundError("No module named 'leap.z'", name="leap.z"), 1, ["defect", "leap.z"]),
        (ZeroDivisionError("by\nzero"), 1, ["defect", "ZeroDivisionError: by zero", "--debug"]),
        (AssertionError(), 1, ["defect", "AssertionError", "--debug"]),
    ],
)
def test_how_a_command_ends_badly(
    command, error, code: int, parts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    command(failing(error))
    assert cli.main(["train"]) == code
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.startswith("leap: ") and len(shown.err.splitlines()) == 1
    assert all(part in shown.err for part in parts), shown.err
    with pytest.raises(type(error)):
        cli.main(["train", "--debug"])


def test_an_out_of_memory_error_of_a_gpu_is_told_apart(command, capsys: pytest.CaptureFixture[str]) -> None:
    command(failing(type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory")))
    assert cli.main(["train"]) == 1
    assert "out of memory" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("stop", "code", "said"), [(SystemExit(4), 4, ""), (SystemExit("no"), 1, "no"), (SystemExit(), 0, "")]
)
def test_a_library_that_exits_gives_its_code(command, stop, code: int, said: str, capsys) -> None:
    command(failing(stop))
    assert cli.main(["train"]) == code
    assert capsys.readouterr().err.strip() == said


def test_a_defect_in_a_process_shows_a_traceback_only_with_debug(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("def main(argv):\n    return 1 / 0\n")
    code = (
        "import sys; sys.path.insert(0, '.'); from leap.cli import main; "
        "main.COMMANDS['train'] = ('broken', ''); sys.exit(main.main())"
    )
    done = process("-c", code, "train", cwd=tmp_path)
    assert done.returncode == 1 and "Traceback" not in done.stderr and "ZeroDivisionError" in done.stderr
    assert "Traceback" in process("-c", code, "train", "--debug", cwd=tmp_path).stderr


def test_a_reader_that_leaves_early_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "loud.py").write_text("def main(argv):\n    print('x' * 1_000_000)\n")
    code = (
        "import sys; sys.path.insert(0, '.'); from leap.cli import main; "
        "main.COMMANDS['train'] = ('loud', ''); sys.exit(main.main())"
    )
    line = [sys.executable, "-c", code, "train"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        line, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as running:
        assert running.stdout is not None and running.stderr is not None
        running.stdout.read(1)
        running.stdout.close()
        assert running.stderr.read() == b""
    assert running.returncode == 141


# leap fetch


def test_fetch_lists_what_it_knows(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["fetch", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "omniglot" in shown and "--to FOLDER" in shown


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["a", "b"], "no data set 'a'"),
        (["omniglott"], "did you mean 'omniglot'?"),
        (["omniglot", "--too", "x"], "did you mean --to?"),
        (["omniglot", "--to"], "--to needs a value"),
    ],
)
def test_fetch_asked_wrongly(words: list[str], hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["fetch", *words]) == 2
    assert hint in capsys.readouterr().err


def test_fetch_hands_the_folder_on_and_says_how_to_use_it(tmp_path: Path, monkeypatch, capsys) -> None:
    from tasks import datasets

    seen: list[Any] = []
    states = [datasets.FileState(tmp_path / "omniglot" / "images.zip", "official")]
    monkeypatch.setattr(datasets, "fetch", lambda name, folder, progress: seen.append((name, folder)) or folder)
    monkeypatch.setattr(datasets, "verify", lambda name, folder: states)
    assert cli.main(["fetch", "omniglot", "--to", str(tmp_path / "omniglot")]) == 0
    assert seen == [("omniglot", tmp_path / "omniglot")]
    shown = capsys.readouterr().out
    assert "the official file" in shown and f"LEAP_DATA={tmp_path}" in shown


def test_check_says_what_is_missing_and_downloads_nothing(tmp_path: Path, monkeypatch, capsys) -> None:
    from tasks import datasets

    monkeypatch.setattr(datasets, "fetch", failing(AssertionError("a download")))
    (tmp_path / "images_background.zip").write_bytes(b"PK\x03\x04 cut short")
    assert cli.main(["fetch", "omniglot", "--check", "--to", str(tmp_path)]) == 1
    shown = capsys.readouterr()
    assert "images_background.zip: damaged" in shown.out and "images_evaluation.zip: missing" in shown.out
    assert "not complete" in shown.err


def test_output_that_is_no_terminal_stays_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    assert cli.main(["--help"]) == 0
    assert "\x1b" not in out.getvalue()
