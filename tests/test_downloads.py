"""Downloads that break off, go on, and are refused: against a server on this machine."""

import errno
import fcntl
import gzip
import hashlib
import itertools
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from file_server import Asked, Site, gzipped, serving, zipped

from tasks import downloads
from tasks.catalogue import File
from tasks.downloads import RECORD, Refused, bring

NAME = "one.zip"
DATA = zipped("one")
REST = len(DATA) - 100


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(downloads, "PAUSE", 0.0)
    monkeypatch.setattr(downloads, "PIECE", 1)  # DATA is smaller than a piece, and a piece that is cut short is lost
    with serving({NAME: DATA}) as running:
        yield running


def at(site: Site, *ways: str, name: str = NAME, checked: bool = True) -> File:
    """The file at an address for each way of serving; not `checked`: neither checksum nor size are published."""
    data = site.content[name]
    urls = tuple(site.url(way, name) for way in ways)
    return File(name, urls, hashlib.md5(data).hexdigest() if checked else None, len(data) if checked else None)


def part(folder: Path, data: bytes | None = None) -> Path:
    path = folder / f"{NAME}.part"
    if data is not None:
        path.write_bytes(data)
    return path


def assert_only(folder: Path, data: bytes = DATA) -> None:
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {NAME: data}


def test_a_file_comes_whole_and_with_the_usual_permissions(site: Site, tmp_path: Path) -> None:
    usual = tmp_path / "usual"
    usual.touch()
    folder = tmp_path / "folder"
    folder.mkdir()
    assert bring(at(site, "good"), folder) == folder / NAME
    assert_only(folder)
    assert (folder / NAME).stat().st_mode == usual.stat().st_mode


# going on


def test_what_came_before_is_not_asked_for_again(site: Site, tmp_path: Path) -> None:
    part(tmp_path, DATA[:100])
    bring(at(site, "good"), tmp_path)
    assert_only(tmp_path)
    assert site.asked == [Asked("good", NAME, 100)] and site.sent == {NAME: REST}


def test_a_cut_connection_is_taken_up_at_once_and_every_byte_sent_once(site: Site, tmp_path: Path) -> None:
    site.limit = len(DATA) // 3 + 1
    bring(at(site, "cut"), tmp_path)
    assert_only(tmp_path)
    assert [asked.first for asked in site.asked] == [0, site.limit, 2 * site.limit]
    assert site.sent == {NAME: len(DATA)}


def test_a_cut_costs_less_than_a_piece(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "PIECE", piece := 1 << 14)
    site.content["large.gz"] = data = gzip.compress(random.Random(0).randbytes(300_000), mtime=0)
    site.limit = 120_000
    bring(at(site, "cut", name="large.gz"), tmp_path)
    assert (tmp_path / "large.gz").read_bytes() == data
    firsts = [asked.first for asked in site.asked]
    assert len(firsts) == 3 and all(site.limit - piece < b - a <= site.limit for a, b in itertools.pairwise(firsts))


def test_after_too_many_cuts_the_next_call_goes_on(site: Site, tmp_path: Path) -> None:
    site.limit = 10
    with pytest.raises(Refused, match=r"/cut/one\.zip: the connection broke off after 40 "):
        bring(at(site, "cut"), tmp_path)
    assert part(tmp_path).read_bytes() == DATA[:40] and not (tmp_path / NAME).exists()
    assert len(site.asked) == downloads.TRIES
    bring(at(site, "good"), tmp_path)
    assert_only(tmp_path)
    assert site.sent == {NAME: len(DATA)}


def test_a_killed_download_goes_on(site: Site, tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from tasks import downloads; from tasks.catalogue import File\n"
        "downloads.PIECE = 1\n"
        "downloads.bring(File(sys.argv[1], (sys.argv[2],), sys.argv[3], int(sys.argv[4])), Path(sys.argv[5]))"
    )
    file = at(site, "slow")
    words = [file.name, file.urls[0], file.md5 or "", str(file.size), str(tmp_path)]
    half = len(DATA) // 2
    with subprocess.Popen([sys.executable, "-c", program, *words]) as running:
        wait_until(lambda: part(tmp_path).exists() and part(tmp_path).stat().st_size == half)
        running.kill()
    assert not (tmp_path / NAME).exists()
    bring(at(site, "good"), tmp_path)
    assert_only(tmp_path)
    assert site.asked[-1] == Asked("good", NAME, half)


def test_a_download_that_only_lacked_its_name_asks_for_nothing(site: Site, tmp_path: Path) -> None:
    part(tmp_path, DATA)
    bring(at(site, "good"), tmp_path)
    assert_only(tmp_path)
    assert site.asked == []


@pytest.mark.parametrize("way", ["whole", "elsewhere"])
def test_a_server_that_cannot_go_on_starts_over(way: str, site: Site, tmp_path: Path) -> None:
    part(tmp_path, DATA[:100])
    bring(at(site, way), tmp_path)
    assert_only(tmp_path)


@pytest.mark.parametrize("there", [b"x" * 100, b"x" * len(DATA), DATA + b"x"])
@pytest.mark.parametrize("way", ["good", "whole"])
def test_the_rest_of_another_version_is_not_kept(way: str, there: bytes, site: Site, tmp_path: Path) -> None:
    part(tmp_path, there)
    bring(at(site, way), tmp_path)
    assert_only(tmp_path)
    assert site.asked[-1].first == 0 or way == "whole"


def test_a_version_that_stays_wrong_is_asked_for_once_more_only(site: Site, tmp_path: Path) -> None:
    part(tmp_path, DATA[:100])
    with pytest.raises(Refused, match="md5 differs"):
        bring(at(site, "altered"), tmp_path)
    assert [asked.first for asked in site.asked] == [100, 0]
    assert list(tmp_path.iterdir()) == []


def test_nothing_beyond_the_end_of_a_file_of_unknown_size(site: Site, tmp_path: Path) -> None:
    part(tmp_path, DATA)  # complete, but only the server knows: it answers 416
    bring(at(site, "good", checked=False), tmp_path)
    assert (tmp_path / NAME).read_bytes() == DATA
    assert [asked.first for asked in site.asked] == [len(DATA), 0]


# several addresses


@pytest.mark.parametrize(
    ("way", "why"),
    [
        ("absent", "404 Not Found"),
        ("busy", "503"),
        ("altered", "md5 differs"),
        ("longer", f"it has {len(DATA) + 4:,} bytes there, the official file {len(DATA):,}"),
        ("endless", f"more than {len(DATA):,} bytes came"),
        ("ftp", "neither http nor https"),
        ("file", "neither http nor https"),
        ("circle", "redirects in a circle"),
    ],
)
def test_the_second_address_serves_where_the_first_does_not(way: str, why: str, site: Site, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=rf"{site.url(way, NAME)}: .*{why}"):
        bring(at(site, way), tmp_path)
    assert list(tmp_path.iterdir()) == []
    bring(at(site, way, "good"), tmp_path)
    assert_only(tmp_path)


def test_the_second_address_goes_on_from_the_first(site: Site, tmp_path: Path) -> None:
    site.limit = 10
    bring(at(site, "cut", "good"), tmp_path)
    assert_only(tmp_path)
    assert site.asked[-1] == Asked("good", NAME, 10 * downloads.TRIES)


def test_every_address_is_named_when_none_serves(site: Site, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"/absent/one\.zip: .*404.*; http.*/busy/one\.zip: .*503"):
        bring(at(site, "absent", "busy"), tmp_path)


def test_a_redirect_is_followed(site: Site, tmp_path: Path) -> None:
    bring(at(site, "moved"), tmp_path)
    assert_only(tmp_path)


def test_nobody_at_the_address(site: Site, tmp_path: Path) -> None:
    nobody = File(NAME, ("http://127.0.0.1:9/one.zip",), "0" * 32, 10)  # the discard port
    with pytest.raises(Refused, match=r"127\.0\.0\.1:9/one\.zip: no connection \(.*[Rr]efused"):
        bring(nobody, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_answer_that_ends_early_without_an_error(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    get = requests.get

    def lenient(*arguments: Any, **options: Any) -> requests.Response:
        response = get(*arguments, **options)
        response.raw.enforce_content_length = False  # as in old versions of urllib3
        return response

    monkeypatch.setattr(requests, "get", lenient)
    site.limit = len(DATA) // 3 + 1
    bring(at(site, "cut"), tmp_path)
    assert [asked.first for asked in site.asked] == [0, site.limit, 2 * site.limit]
    assert_only(tmp_path)


def test_a_server_that_says_nothing(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "TIMEOUT", 0.2)
    with pytest.raises(Refused, match=r"no answer within 0\.2 seconds"):
        bring(at(site, "silent"), tmp_path)


def test_a_server_that_falls_silent(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "TIMEOUT", 0.2)
    monkeypatch.setattr(downloads, "TRIES", 1)
    with pytest.raises(Refused, match=f"broke off after {len(DATA) // 2:,} "):
        bring(at(site, "slow"), tmp_path)
    assert part(tmp_path).read_bytes() == DATA[: len(DATA) // 2]


# what comes


def test_a_file_that_is_called_encoded_stays_as_it_is(site: Site, tmp_path: Path) -> None:
    site.content["labels.gz"] = gzipped("a label a line")
    bring(at(site, "labelled", name="labels.gz"), tmp_path)
    assert (tmp_path / "labels.gz").read_bytes() == site.content["labels.gz"]


def test_a_file_without_a_checksum_must_be_whole_and_is_recorded(site: Site, tmp_path: Path) -> None:
    data = site.content["numbers.gz"] = gzipped("1 2 3")
    (tmp_path / RECORD).write_text("0000  other.txt\nffff  numbers.gz\n")
    bring(at(site, "good", name="numbers.gz", checked=False), tmp_path)
    sums = f"0000  other.txt\n{hashlib.sha256(data).hexdigest()}  numbers.gz\n"
    assert (tmp_path / RECORD).read_text() == sums
    assert sorted(path.name for path in tmp_path.iterdir()) == [RECORD, "numbers.gz"]


@pytest.mark.parametrize("way", ["short", "altered"])
def test_a_file_without_a_checksum_that_is_not_whole_is_refused(way: str, site: Site, tmp_path: Path) -> None:
    site.content["numbers.gz"] = gzipped("1 2 3")
    with pytest.raises(Refused, match=r"not a whole \.gz file|broke off"):
        bring(at(site, way, name="numbers.gz", checked=False), tmp_path)
    assert not (tmp_path / "numbers.gz").exists()


@pytest.mark.parametrize("way", ["good", "endless"])
def test_a_file_of_unknown_size_has_a_limit(
    way: str, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "LIMIT", 50)
    with pytest.raises(Refused, match=r"more than (the )?50 "):
        bring(at(site, way, checked=False), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_answer_of_the_wrong_length_does_not_cost_what_is_there(site: Site, tmp_path: Path) -> None:
    part(tmp_path, DATA[:100])
    site.content["page.html"] = b"<html>Please log in</html>"
    page = File(NAME, (site.url("whole", "page.html"),), "0" * 32, len(DATA))
    with pytest.raises(Refused, match="it has 26 bytes there"):
        bring(page, tmp_path)
    assert part(tmp_path).read_bytes() == DATA[:100]


# this machine


def test_what_was_there_stays_until_the_new_file_is_whole(site: Site, tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"damaged")
    with pytest.raises(Refused):
        bring(at(site, "altered"), tmp_path)
    assert_only(tmp_path, b"damaged")
    bring(at(site, "good"), tmp_path)
    assert_only(tmp_path)


def test_too_little_space_is_told_before_anything_is_asked_for(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=REST)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(OSError, match=r"MB are needed, .* MB are free") as caught:
        bring(at(site, "good"), tmp_path)
    assert caught.value.errno == errno.ENOSPC and site.asked == [] and list(tmp_path.iterdir()) == []
    part(tmp_path, DATA[:100])  # the rest fits
    bring(at(site, "good"), tmp_path)
    assert_only(tmp_path)


def test_a_disk_that_fills_up_keeps_what_came(site: Site, tmp_path: Path) -> None:
    limit = len(DATA) // 2
    program = (
        "import resource, signal, sys; from pathlib import Path; from tasks.catalogue import File\n"
        "from tasks.downloads import bring\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
        "try: bring(File(sys.argv[1], (sys.argv[2],), sys.argv[3], int(sys.argv[4])), Path(sys.argv[5]))\n"
        "except OSError as error: print(error.errno)"
    )
    file = at(site, "good")
    words = [file.name, file.urls[0], file.md5 or "", str(file.size), str(tmp_path)]
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(errno.EFBIG)] and done.stderr == ""
    assert part(tmp_path).read_bytes() == DATA[:limit]
    bring(file, tmp_path)
    assert_only(tmp_path)
    assert site.asked[-1].first == limit


def test_a_place_that_is_taken_by_a_folder(site: Site, tmp_path: Path) -> None:
    (tmp_path / NAME).mkdir()
    with pytest.raises(OSError):
        bring(at(site, "good"), tmp_path)


def test_two_at_once_download_it_once(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    file = at(site, "slow")
    results: list[Path | BaseException] = []

    def run(progress: bool) -> None:
        try:
            results.append(bring(file, tmp_path, progress))
        except BaseException as error:
            results.append(error)

    first, second = threading.Thread(target=run, args=(False,)), threading.Thread(target=run, args=(True,))
    first.start()
    wait_until(lambda: part(tmp_path).exists() and part(tmp_path).stat().st_size > 0)
    second.start()
    shown = ""

    def waits() -> bool:
        nonlocal shown
        shown += capfd.readouterr().err
        return "another process is downloading it; waiting" in shown

    wait_until(waits)
    site.gate.set()
    first.join()
    second.join()
    assert results == [tmp_path / NAME] * 2
    assert_only(tmp_path)
    assert site.names == [NAME]


def test_the_next_in_line_goes_on_where_the_first_one_failed(site: Site, tmp_path: Path) -> None:
    site.limit = 10
    errors: list[BaseException] = []

    def fail() -> None:
        try:
            bring(at(site, "cut"), tmp_path)
        except Refused as error:
            errors.append(error)

    threads = [threading.Thread(target=fail) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    came = 30 * downloads.TRIES
    assert len(errors) == 3 and part(tmp_path).read_bytes() == DATA[:came]
    assert sorted(asked.first for asked in site.asked) == list(range(0, came, 10))


def test_who_waited_for_a_file_that_was_removed_makes_a_new_one(
    site: Site, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with part(tmp_path).open("wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        thread = threading.Thread(target=bring, args=(at(site, "good"), tmp_path, True))
        thread.start()
        wait_until(lambda: "waiting" in capfd.readouterr().err)
        part(tmp_path).unlink()
    thread.join()
    assert_only(tmp_path)


def test_a_disk_without_locks(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", refuse)
    bring(at(site, "good"), tmp_path)
    assert_only(tmp_path)


def wait_until(true: Callable[[], bool], seconds: float = 15) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)
