"""leap export writes a whole folder or none, over nothing of others; the command."""

from __future__ import annotations

import fcntl
import os
import re
import threading
from pathlib import Path

import pytest
from shared_runs import FAMILIES, contents, evaluated_bowls, finished, front, small

from leap.cli import export
from leap.errors import RunError, UsageError
from leap.sharing import folder as shared_folder
from tasks.networks import Network


@pytest.fixture
def run(tmp_path):
    return small(tmp_path / "run")


@pytest.fixture
def evaluated(tmp_path):
    return evaluated_bowls(tmp_path / "real")


def test_an_earlier_export_is_replaced_whole(tmp_path, evaluated):
    out = export.export(evaluated.path, tmp_path / "out")
    assert "Brackets" in front(out)[1]
    (evaluated.path / "evaluation.json").unlink()
    (out / "rates.safetensors").write_bytes(b"of before")
    (out / "README.md").unlink()
    export.export(evaluated.path, tmp_path / "out")
    assert "Nothing was measured" in front(out)[1] and not (out / "rates.safetensors").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "real"]


def test_an_empty_folder_is_taken_and_folders_are_made(tmp_path, run):
    (tmp_path / "empty").mkdir()
    export.export(run.path, tmp_path / "empty")
    export.export(run.path, tmp_path / "a" / "b" / "c")
    assert contents(tmp_path / "empty") == contents(tmp_path / "a" / "b" / "c")
    assert (tmp_path / "empty").stat().st_mode & 0o777 == 0o777 & ~current_umask()


def current_umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_folders_of_others_are_refused_and_left_alone(tmp_path, run, monkeypatch):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("precious")
    other = export.export(small(tmp_path / "other", seed=1).path, tmp_path / "other-out")
    damaged = export.export(run.path, tmp_path / "damaged")
    (damaged / "initialization.safetensors").write_bytes(b"cut")
    (tmp_path / "readme").mkdir()
    (tmp_path / "readme" / "README.md").write_text("mine")
    before = contents(tmp_path)
    for to, what in (
        (tmp_path / "notes", "holds other files .mine.txt"),
        (tmp_path / "notes" / "mine.txt", "is a file"),
        (run.path, "holds other files"),
        (tmp_path, "holds other files"),
        (other, "the export of another run"),
        (damaged, "the export of another run"),
        (tmp_path / "readme", "the export of another run"),
    ):
        with pytest.raises(UsageError, match=what):
            export.export(run.path, to)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(UsageError, match="is the current folder"):
        export.main([str(run.path), "--to", "."])
    assert contents(tmp_path) == before


def test_the_root_of_all_is_refused(run):
    with pytest.raises(UsageError, match="or all there is"):
        export.main([str(run.path), "--to", "/"])


def test_files_of_others_are_named_in_one_short_line(tmp_path, run):
    (tmp_path / "notes").mkdir()
    for name in ("a\nb", "c\x1b[2J", "d", "e", "f"):
        (tmp_path / "notes" / name).touch()
    with pytest.raises(UsageError) as found:
        export.export(run.path, tmp_path / "notes")
    assert r"(a\nb, c\x1b[2J, d, ...)" in str(found.value) and len(str(found.value).splitlines()) == 1


def test_a_home_folder_is_found_for_the_run_and_the_export(tmp_path, run, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert export.main(["~/run", "--to", "~/out"]) == 0
    assert export.export(Path("~/run"), Path("~/api")) == tmp_path / "api"
    assert contents(tmp_path / "out") == contents(tmp_path / "api") and not Path("~").exists()


def test_a_link_to_a_folder_stays_a_link(tmp_path, run):
    for existing in ("full", "empty"):
        (tmp_path / existing).mkdir()
        (tmp_path / f"link-{existing}").symlink_to(tmp_path / existing)
    export.export(run.path, tmp_path / "full")
    (tmp_path / "full" / "README.md").write_text("of before")
    for existing in ("full", "empty"):
        export.export(run.path, tmp_path / f"link-{existing}")
        assert (tmp_path / f"link-{existing}").is_symlink()
    assert contents(tmp_path / "full") == contents(tmp_path / "empty")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "full", "link-empty", "link-full", "run"]


def test_a_name_may_be_as_long_as_a_name_may_be(tmp_path, run):
    out = export.export(run.path, tmp_path / ("x" * 255))
    assert contents(export.export(run.path, out)) == contents(out) and len(os.listdir(tmp_path)) == 2


def test_an_export_waits_for_another_beside_it(tmp_path, run):
    """Both write under the same names until they are done."""
    done = threading.Event()

    def write():
        export.export(run.path, tmp_path / "out")
        done.set()

    handle = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        thread = threading.Thread(target=write)
        thread.start()
        assert not done.wait(1.0) and sorted(os.listdir(tmp_path)) == ["run"]
    finally:
        os.close(handle)
    thread.join(30)
    assert done.is_set() and (tmp_path / "out").is_dir()


def test_a_file_system_without_locks_is_no_hindrance(tmp_path, run, monkeypatch):
    def refuse(handle, operation):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert (export.export(run.path, tmp_path / "out") / "README.md").exists()


def test_runs_that_cannot_be_exported_leave_nothing(tmp_path, run):
    out = export.export(run.path, tmp_path / "out")
    with pytest.raises(UsageError, match="is an export already"):
        export.export(out, tmp_path / "again")
    with pytest.raises(UsageError, match="holds no run"):
        export.export(tmp_path, tmp_path / "again")
    data = bytearray(run.initialization.read_bytes())
    data[-1] ^= 4
    run.initialization.write_bytes(data)
    with pytest.raises(RunError, match="do not match their digest"):
        export.export(run.path, tmp_path / "again")
    run.initialization.unlink()
    with pytest.raises(UsageError, match=f"leap train --resume {run.path}"):
        export.export(run.path, tmp_path / "again")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "run"]


def test_a_run_of_another_network_is_refused(tmp_path):
    settings, _ = FAMILIES["sinusoid"]
    run = finished(tmp_path / "run", settings, Network("mlp", {"hidden": [5, 4]}))
    with pytest.raises(RunError, match="another network"):
        export.export(run.path, tmp_path / "out")


@pytest.mark.parametrize("place", [1, 3, 6])
def test_a_full_disk_leaves_what_was_there(tmp_path, run, monkeypatch, place):
    out = export.export(run.path, tmp_path / "out")
    (out / "README.md").write_text("of before")
    before, real, count = contents(tmp_path), os.fsync, [0]

    def full(handle):
        count[0] += 1
        if count[0] == place:
            raise OSError(28, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "fsync", full)
    for to in ("out", "new"):
        count[0] = 0
        with pytest.raises(OSError, match="No space"):
            export.export(run.path, tmp_path / to)
        assert contents(tmp_path) == before and not (tmp_path / "new").exists()


def test_a_kill_at_any_moment_leaves_one_whole_folder(tmp_path, run, monkeypatch):
    """Whatever the kill leaves, the next export finds its way."""
    out = export.export(run.path, tmp_path / "out")
    whole = contents(out)
    staged, old = tmp_path / ".out.new", tmp_path / ".out.old"
    staged.mkdir()
    (staged / "layout.json").write_text("half")
    out.rename(old)  # between the two renamings
    other = small(tmp_path / "other", seed=1)
    with pytest.raises(UsageError, match="another run"):
        export.export(other.path, out)
    out.rename(old)
    with monkeypatch.context() as patch, pytest.raises(OSError, match="full"):
        patch.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "full")))
        export.export(run.path, tmp_path / "out")
    assert contents(out) == whole  # though the next export failed as well
    out.rename(old)
    export.export(run.path, tmp_path / "out")
    assert contents(out) == whole and not staged.exists() and not old.exists()
    monkeypatch.setattr(shared_folder.shutil, "rmtree", lambda *a, **k: None)
    export.export(run.path, tmp_path / "out")
    assert contents(out) == whole == contents(old)


def test_if_the_folder_cannot_be_put_in_its_place_the_old_one_returns(tmp_path, run, monkeypatch):
    out = export.export(run.path, tmp_path / "out")
    before, real = contents(tmp_path), type(tmp_path).rename

    def rename(self, target):
        if self.name.endswith(".new"):
            raise PermissionError(13, "Permission denied", str(target))
        return real(self, target)

    monkeypatch.setattr(type(tmp_path), "rename", rename)
    with pytest.raises(PermissionError):
        export.export(run.path, out)
    assert contents(tmp_path) == before


def test_the_run_is_not_changed(tmp_path, evaluated):
    before = contents(evaluated.path)
    export.export(evaluated.path, tmp_path / "out")
    assert contents(evaluated.path) == before


def test_the_command(tmp_path, run, capsys):
    assert export.main([str(run.path), "--to", str(tmp_path / "out"), "--license", "mit"]) == 0
    told = capsys.readouterr()
    assert told.out == f"exported {tmp_path / 'out'}\n" and told.err == ""
    assert front(tmp_path / "out")[0]["license"] == "mit"
    assert export.main([str(run.path), "--to", str(tmp_path / "out")]) == 0
    assert "add --license ID" in capsys.readouterr().err
    assert export.main(["--help"]) == 0 and "usage: leap export RUN_FOLDER --to FOLDER" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ([], "name one run folder, got 0"),
        (["RUN", "RUN", "--to", "OUT"], "name one run folder, got 2"),
        (["RUN"], "with --to FOLDER"),
        (["RUN", "--to"], "--to needs a value"),
        (["RUN", "--to", "OUT", "--public"], "add --upload"),
        (["RUN", "--to", "OUT", "--license", "my own: words\n"], "--license needs an identifier"),
        (["RUN", "--to", "OUT", "--upload", "nobody"], "USER/NAME"),
        (["RUN", "--to", "OUT", "--upload", "../../x"], "USER/NAME"),
        (["RUN", "--to", "OUT", "--train.steps", "3"], "unknown option"),
        (["NOWHERE", "--to", "OUT"], "holds no run"),
    ],
)
def test_what_is_asked_wrongly(tmp_path, run, words, what):
    names = {"RUN": str(run.path), "OUT": str(tmp_path / "out"), "NOWHERE": str(tmp_path / "nowhere")}
    with pytest.raises(UsageError, match=re.escape(what)):
        export.main([names.get(word, word) for word in words])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run"]
