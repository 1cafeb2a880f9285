"""`leap fetch`: the list of data sets, several at once, and what is told of failures."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from file_server import Site, serving, zipped

from leap.cli import main as cli
from leap.errors import RunError, UsageError
from tasks import downloads
from tasks.catalogue import DATASETS, Dataset, File

DATA = zipped("one")


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(downloads, "PAUSE", 0.0)
    with serving({"one.zip": DATA}) as running:
        yield running


@pytest.fixture
def home(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of four data sets: two that are served, one that is not, and one for a person to get."""
    rows = {
        name: Dataset(
            name,
            f"A {name}",
            (File("one.zip", (site.url(way, "one.zip"),), hashlib.md5(DATA).hexdigest(), len(DATA)),),
            "free",
            "https://example.org",
        )
        for name, way in [("toy", "good"), ("lost", "absent"), ("game", "good")]
    }
    rows["doll"] = Dataset("doll", "A doll", (), "ask", "https://example.org", by_hand="it is shy", put="it")
    for name in list(DATASETS):
        monkeypatch.delitem(DATASETS, name)
    for name, row in rows.items():
        monkeypatch.setitem(DATASETS, name, row)
    monkeypatch.setenv("LEAP_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def table(text: str) -> dict[str, list[str]]:
    """The cells of the list's rows."""
    rows = (line.split("  ") for line in text.splitlines()[2:-1])
    return {row[0]: [cell.strip() for cell in row[1:] if cell.strip()] for row in rows}


def test_without_a_name_it_lists_what_is_there(home: Path, capsys: pytest.CaptureFixture[str], site: Site) -> None:
    size = f"{len(DATA) / 1e6:.1f} MB"
    assert cli.main(["fetch"]) == 0
    assert table(capsys.readouterr().out) == {
        "toy": ["missing", size, "free"],
        "lost": ["missing", size, "free"],
        "game": ["missing", size, "free"],
        "doll": ["by hand", "-", "ask"],
    }
    for name in ("toy", "lost", "doll"):
        (home / name).mkdir(parents=True)
    (home / "toy" / "one.zip").write_bytes(DATA)
    np.savez(home / "lost" / "subset.npz", images=np.zeros(3))
    np.savez(home / "doll" / "a.npz", images=np.zeros(3))
    np.savez(home / "doll" / "b.npz", images=np.zeros(3))
    assert cli.main(["fetch"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"{home}:\n")
    assert table(shown) == {
        "toy": ["present", "-", "1 of 1 files", "free"],
        "lost": ["part", size, "subset.npz", "free"],
        "game": ["missing", size, "free"],
        "doll": ["present", "-", "2 others", "ask"],
    }
    assert site.asked == []


def test_one_is_fetched_and_then_left_alone(home: Path, capsys: pytest.CaptureFixture[str], site: Site) -> None:
    for _ in range(2):
        assert cli.main(["fetch", "toy"]) == 0
        assert capsys.readouterr() == (f"{home / 'toy' / 'one.zip'}: the official file\n", "")
    assert site.names == ["one.zip"]


def test_one_that_fails_does_not_stop_the_others(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["fetch", "lost", "toy", "doll", "game", "toy"]) == RunError.exit_code
    shown = capsys.readouterr()
    assert sorted(path.name for path in home.glob("*/one.zip")) == ["one.zip"] * 2
    assert shown.out.count("the official file") == 2
    lost, doll, last = shown.err.splitlines()
    assert "404 Not Found" in lost and "it is shy" in doll
    assert last == "leap: not complete: lost, doll (2 of 4 data sets; the reasons stand above)"


def test_all_are_those_that_can_be_downloaded(home: Path, capsys: pytest.CaptureFixture[str], site: Site) -> None:
    assert cli.main(["fetch", "--all"]) == RunError.exit_code
    assert "not complete: lost (1 of 3" in capsys.readouterr().err
    assert [asked.way for asked in site.asked] == ["good", "absent", "good"]


@pytest.mark.parametrize("more", [[], ["--check"]])
def test_one_for_a_person_to_get(more: list[str], home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["fetch", "doll", *more]) == UsageError.exit_code
    told = capsys.readouterr().err
    assert all(words in told for words in ("it is shy", "https://example.org", "terms: ask", str(home / "doll")))
    assert "Traceback" not in told and not (home / "doll").exists()
    (home / "doll").mkdir(parents=True)
    np.savez(home / "doll" / "a.npz", images=np.zeros(3))
    assert cli.main(["fetch", "doll", *more]) == 0


def test_several_for_a_person_to_get_are_asked_for_wrongly(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DATASETS, "bear", DATASETS["doll"])
    assert cli.main(["fetch", "doll", "bear"]) == UsageError.exit_code


def test_check_tells_a_broken_file_and_downloads_nothing(
    home: Path, capsys: pytest.CaptureFixture[str], site: Site
) -> None:
    (home / "toy").mkdir(parents=True)
    broken = bytearray(DATA)
    broken[60] ^= 1
    (home / "toy" / "one.zip").write_bytes(broken)
    assert cli.main(["fetch", "--check", "toy"]) == RunError.exit_code
    shown = capsys.readouterr()
    assert "one.zip: damaged" in shown.out and "toy is not complete" in shown.err
    assert cli.main(["fetch", "toy", "game", "--check"]) == RunError.exit_code
    assert site.asked == []


def test_a_broken_copy_of_someone_elses_is_shown_but_not_missed(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "toy").mkdir(parents=True)
    (home / "toy" / "mine.npz").write_bytes(b"PK")
    assert cli.main(["fetch", "toy"]) == 0
    assert "mine.npz: damaged" in capsys.readouterr().out


def test_a_misspelt_name_is_told_before_anything_is_downloaded(
    home: Path, capsys: pytest.CaptureFixture[str], site: Site
) -> None:
    assert cli.main(["fetch", "toy", "gmae"]) == UsageError.exit_code
    assert "did you mean 'game'" in capsys.readouterr().err and site.asked == []


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["toy", "game", "--to", "x"], "--to is the folder of one data set, got 2"),
        (["--to", "x"], "got 0"),
        (["--all", "toy"], "name toy without it"),
        (["--all", "--to", "x"], "got 3"),
    ],
)
def test_asked_wrongly(words: list[str], hint: str, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["fetch", *words]) == UsageError.exit_code
    assert hint in capsys.readouterr().err


def test_a_folder_of_ones_own_and_how_to_use_it(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["fetch", "toy", "--to", str(tmp_path / "own" / "toy")]) == 0
    assert f"LEAP_DATA={tmp_path / 'own'}" in capsys.readouterr().out
    assert cli.main(["fetch", "toy", "--to", str(tmp_path / "else")]) == 0
    assert f"--tasks.folder {tmp_path / 'else'}" in capsys.readouterr().out
    assert not home.exists()
