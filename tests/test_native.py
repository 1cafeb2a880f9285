"""Loops in C: compiled once, kept, and done without where they cannot be had."""

from __future__ import annotations

import functools
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from leap import native
from leap.errors import UsageError

SOURCE = "int answer(void) { return ANSWER; }\n"
pytestmark = pytest.mark.skipif(native._path() is None, reason="no C compiler was found: cc, gcc or clang")


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A cache folder of its own, and nothing known from before; afterwards nothing known of it."""
    monkeypatch.setenv("LEAP_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LEAP_NATIVE", raising=False)
    forget()
    yield
    forget()


def forget() -> None:
    native._library.cache_clear()
    native.compiler.cache_clear()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "answer.c"
    path.write_text(SOURCE)
    return path


def kept(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache" / "native").iterdir())


def test_a_file_is_compiled_with_its_definitions_and_kept(source: Path, tmp_path: Path) -> None:
    one, other = native.library(source, "ANSWER=42"), native.library(source, "ANSWER=7")
    assert one is not None and other is not None
    assert (one.answer(), other.answer()) == (42, 7)
    assert [path.suffix for path in kept(tmp_path)] == [".so", ".so"]


def test_what_is_kept_is_not_compiled_again(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert native.library(source, "ANSWER=42") is not None
    forget()

    def never(*arguments: object) -> None:
        raise AssertionError("compiled again")

    monkeypatch.setattr(native, "_compiled", never)
    again = native.library(source, "ANSWER=42")
    assert again is not None and again.answer() == 42


@pytest.mark.parametrize("change", ["source", "header", "compiler", "processor"])
def test_another_source_compiler_or_processor_has_a_library_of_its_own(
    change: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    native.library(source, "ANSWER=42")
    forget()
    if change == "source":
        source.write_text("int answer(void) { return ANSWER + 1; }\n")
    elif change == "header":  # which other files beside it may include
        source.with_name("one.h").write_text("#define ONE 1\n")
    elif change == "compiler":
        monkeypatch.setattr(native, "compiler", functools.cache(lambda: "another 1.0"))
    else:
        monkeypatch.setattr(native, "_processor", lambda: "another")
    again = native.library(source, "ANSWER=42")
    assert again is not None and again.answer() == (43 if change == "source" else 42)
    assert len(kept(tmp_path)) == 2


def test_a_damaged_library_is_compiled_anew(source: Path, tmp_path: Path) -> None:
    native.library(source, "ANSWER=42")
    (path,) = kept(tmp_path)
    # under another name: one file cannot be loaded twice in a process, whatever becomes of it
    forget()
    path.unlink()
    path.write_bytes(b"\x7fELF, cut short")
    code = (
        "from pathlib import Path; from leap import native; "
        f"print(native.library(Path({str(source)!r}), 'ANSWER=42').answer())"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "42"
    assert path.stat().st_size > 1000


def test_a_folder_that_cannot_be_written_to_costs_the_time_of_compiling(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LEAP_CACHE", str(tmp_path / "file"))  # no folder can be made in a file
    found = native.library(source, "ANSWER=42")
    assert found is not None and found.answer() == 42
    assert "is not kept" in caplog.text


def test_a_full_disk_leaves_no_half_library(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def half(made: Path, near: Path) -> None:
        near.write_bytes(made.read_bytes()[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(native.shutil, "copyfile", half)
    found = native.library(source, "ANSWER=42")
    assert found is not None and found.answer() == 42
    assert "No space left" in caplog.text and kept(tmp_path) == []


def test_a_source_that_does_not_compile_is_done_without(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "broken.c"
    path.write_text("int answer(void) { return nothing; }\n")
    assert native.library(path) is None
    assert "broken.c could not be compiled" in caplog.text and "nothing" in caplog.text
    assert caplog.records[-1].levelno == logging.WARNING
    caplog.clear()
    assert native.library(path) is None and not caplog.records  # said once


def test_it_can_be_done_without(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEAP_NATIVE", "0")
    assert native.library(source, "ANSWER=42") is None
    assert native.compiler() == "none (LEAP_NATIVE=0)"


def test_a_machine_without_a_compiler_does_without(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.devnull)
    monkeypatch.delenv("CC", raising=False)
    assert native.library(source, "ANSWER=42") is None
    assert native.compiler() == "none (no C compiler: cc, gcc or clang)"


def test_a_compiler_that_fails_is_told(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "cc"
    path.write_text("#!/bin/sh\nexit 3\n")
    path.chmod(0o755)
    monkeypatch.setenv("CC", str(path))
    assert native.library(source, "ANSWER=42") is None
    assert "does not tell its version" in native.compiler()


def test_another_value_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEAP_NATIVE", "off")
    with pytest.raises(UsageError, match=r"LEAP_NATIVE must be 0 .* or 1, got 'off'"):
        native.compiler()


def test_processes_that_start_at_once_all_get_it(source: Path, tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from leap import native; "
        f"print(native.library(Path({str(source)!r}), 'ANSWER=42').answer())"
    )
    started = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(4)]
    assert [process.communicate()[0].strip() for process in started] == ["42"] * 4
    assert len(kept(tmp_path)) == 1
