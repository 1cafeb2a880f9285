"""Finding and downloading data sets, against a server on this machine."""

import hashlib
import http.server
import io
import os
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from leap.errors import RunError, UsageError
from tasks import datasets
from tasks.datasets import Dataset, File, fetch, locate, verify


def zipped(text: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("text", text * 100)
    return buffer.getvalue()


CONTENT = {"one.zip": zipped("one"), "two.zip": zipped("two")}


class Server(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT, some of it badly, and remembers what was asked for."""

    asked: list[str]

    def do_GET(self) -> None:
        kind, name = self.path.strip("/").split("/")
        self.asked.append(name)
        if kind == "absent":
            self.send_error(404)
            return
        data = CONTENT[name]
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write({"good": data, "altered": b"x" * len(data), "short": data[:-10]}[kind])

    def log_message(self, *arguments: object) -> None:
        """Say nothing: requests would mix with the output of the tests."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[http.server.HTTPServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(Server, "asked", [], raising=False)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def register(monkeypatch: pytest.MonkeyPatch, port: int, kinds: tuple[str, str] = ("good", "good")) -> None:
    """A data set `toy` of two files, each served in a way of its own."""
    files = tuple(
        File(name, f"http://127.0.0.1:{port}/{kind}/{name}", hashlib.md5(data).hexdigest())
        for (name, data), kind in zip(CONTENT.items(), kinds, strict=True)
    )
    row = Dataset("toy", "A toy", files, "none", "https://example.org/toy")
    monkeypatch.setitem(datasets.DATASETS, "toy", row)


def states(folder: Path) -> list[str]:
    return [file.state for file in verify("toy", folder)]


def test_fetch_brings_the_files_once(
    server: http.server.HTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    register(monkeypatch, server.server_port)
    monkeypatch.setenv("LEAP_DATA", str(tmp_path / "data"))
    folder = fetch("toy", progress=False)
    assert folder == tmp_path / "data" / "toy" == locate("toy")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == CONTENT
    before = [path.stat().st_mtime_ns for path in sorted(folder.iterdir())]
    assert fetch("toy") == folder and Server.asked == ["one.zip", "two.zip"]
    assert [path.stat().st_mtime_ns for path in sorted(folder.iterdir())] == before
    assert capfd.readouterr() == ("", "")


def test_fetch_shows_a_bar_a_file(
    server: http.server.HTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    register(monkeypatch, server.server_port)
    fetch("toy", tmp_path, progress=True)
    assert capfd.readouterr().err.count("100%") == 2


def test_fetch_goes_on_where_it_stopped(
    server: http.server.HTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(monkeypatch, server.server_port, ("good", "absent"))
    with pytest.raises(RunError, match=r"two\.zip from http.*404.*https://example\.org/toy"):
        fetch("toy", tmp_path, progress=False)
    assert states(tmp_path) == ["official", "missing"]
    register(monkeypatch, server.server_port)
    fetch("toy", tmp_path, progress=False)
    assert states(tmp_path) == ["official", "official"] and Server.asked == ["one.zip", "two.zip", "two.zip"]


@pytest.mark.parametrize(("kind", "words"), [("altered", "md5 differs"), ("short", "download failed")])
def test_wrong_bytes_are_refused_and_leave_nothing(
    kind: str, words: str, server: http.server.HTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(monkeypatch, server.server_port, (kind, "good"))
    with pytest.raises(RunError, match=words) as caught:
        fetch("toy", tmp_path, progress=False)
    assert f"http://127.0.0.1:{server.server_port}/{kind}/one.zip" in str(caught.value)
    assert "LEAP_DATA" in str(caught.value) and str(tmp_path) in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_server_gone(server: http.server.HTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, 9)  # the discard port: nothing answers
    with pytest.raises(RunError, match=r"127\.0\.0\.1:9/good/one\.zip: the download failed .*one\.zip and two\.zip"):
        fetch("toy", tmp_path, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_damaged_file_is_replaced_and_another_container_is_kept(
    server: http.server.HTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(monkeypatch, server.server_port)
    other = zipped("two, packed by someone else")
    (tmp_path / "one.zip").write_bytes(CONTENT["one.zip"][:-20])
    (tmp_path / "two.zip").write_bytes(other)
    assert states(tmp_path) == ["damaged", "other"]
    fetch("toy", tmp_path, progress=False)
    assert states(tmp_path) == ["official", "other"]
    assert (tmp_path / "two.zip").read_bytes() == other and Server.asked == ["one.zip"]


def test_altered_entry_is_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, 9)
    data = bytearray(CONTENT["one.zip"])
    data[60] ^= 1  # in the stored text, which the entry's checksum covers
    (tmp_path / "one.zip").write_bytes(data)
    assert states(tmp_path) == ["damaged", "missing"]


def test_folder_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, 9)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"cannot make folder .*file/toy.*LEAP_DATA"):
        fetch("toy", tmp_path / "file" / "toy")


def test_full_disk_is_told_from_a_failed_download(
    server: http.server.HTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(monkeypatch, server.server_port)

    def full(*arguments: object, **named: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pooch.core.stream_download", full)
    with pytest.raises(RunError, match=r"cannot write .*one\.zip: No space left on device"):
        fetch("toy", tmp_path, progress=False)


def test_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(UsageError, match="no data set 'Omniglott'; did you mean 'omniglot'"):
        locate("Omniglott")
    with pytest.raises(UsageError, match="no data set 'imagenet'; Known: omniglot"):
        fetch("imagenet")


def test_missing_data_says_where_it_was_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEAP_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    with pytest.raises(UsageError, match=f"LEAP_DATA={tmp_path} has no folder omniglot.*leap fetch omniglot") as caught:
        locate("omniglot")
    assert str(tmp_path / "share" / "leap") in str(caught.value)
    monkeypatch.delenv("LEAP_DATA")
    place = tmp_path / "share" / "leap" / "omniglot"
    with pytest.raises(UsageError, match=f"there is no {place}, and LEAP_DATA is not set"):
        locate("omniglot")
    place.mkdir(parents=True)
    assert locate("omniglot") == place


def test_default_folder_is_in_the_home(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LEAP_DATA", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("HOME", "/home/someone")
    assert datasets.home() == Path("/home/someone/.local/share/leap")


def test_official_omniglot_is_described() -> None:
    row = datasets.dataset("omniglot")
    assert row.licence.startswith("MIT") and row.home.startswith("https://github.com/brendenlake/")
    assert all(file.url.startswith("https://") and file.url.endswith(f"/{file.name}") for file in row.files)


def test_real_omniglot_is_whole() -> None:
    folder = os.environ.get("LEAP_DATA")
    if not folder:
        pytest.skip("LEAP_DATA is not set: it names the folder that holds omniglot/")
    assert {file.state for file in verify("omniglot")} <= {"official", "other"}
    assert fetch("omniglot", progress=False) == Path(folder, "omniglot")
