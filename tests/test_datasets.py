"""Finding and downloading data sets, against a server on this machine."""

import gzip
import hashlib
import os
import re
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from file_server import Site, serving, zipped
from scipy.io import savemat

from leap.errors import RunError, UsageError
from tasks import datasets, downloads, image_sources, integrity
from tasks.catalogue import DATASETS, Dataset, File
from tasks.datasets import fetch, locate, presence, verify

CONTENT = {"one.zip": zipped("one"), "two.zip": zipped("two")}
NOWHERE = Site(CONTENT)
NOWHERE.port = 9  # the discard port: nothing answers


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(downloads, "PAUSE", 0.0)
    with serving(CONTENT) as running:
        yield running


def register(monkeypatch: pytest.MonkeyPatch, site: Site, *ways: str) -> None:
    """A data set `toy` of two files, each served in a way of its own."""
    files = tuple(
        File(file, (site.url(way, file),), hashlib.md5(data).hexdigest(), len(data))
        for (file, data), way in zip(CONTENT.items(), ways or ("good", "good"), strict=True)
    )
    row = Dataset("toy", "A toy", files, "free", "https://example.org/toy")
    monkeypatch.setitem(DATASETS, "toy", row)


def register_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    row = Dataset(
        "dolls", "Dolls", (), "ask", "https://example.org/dolls", ("*.npz", "*/"), "they are shy", "dolls.npz"
    )
    monkeypatch.setitem(DATASETS, "dolls", row)


def states(folder: Path, name: str = "toy") -> list[str]:
    return [file.state for file in verify(name, folder)]


def test_fetch_brings_the_files_once(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    register(monkeypatch, site)
    monkeypatch.setenv("LEAP_DATA", str(tmp_path / "data"))
    folder = fetch("toy", progress=False)
    assert folder == tmp_path / "data" / "toy" == locate("toy")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == CONTENT
    before = [path.stat().st_mtime_ns for path in sorted(folder.iterdir())]
    assert fetch("toy") == folder and site.names == ["one.zip", "two.zip"]
    assert [path.stat().st_mtime_ns for path in sorted(folder.iterdir())] == before
    assert capfd.readouterr() == ("", "")


def test_fetch_shows_a_bar_a_file(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    register(monkeypatch, site)
    fetch("toy", tmp_path, progress=True)
    assert capfd.readouterr().err.count("100%") == 2


def test_fetch_goes_on_where_it_stopped(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, site, "good", "absent")
    with pytest.raises(RunError, match=r"two\.zip did not come from http.*404.*https://example\.org/toy"):
        fetch("toy", tmp_path, progress=False)
    assert states(tmp_path) == ["official", "missing"]
    register(monkeypatch, site)
    fetch("toy", tmp_path, progress=False)
    assert states(tmp_path) == ["official", "official"] and site.names == ["one.zip", "two.zip", "two.zip"]


@pytest.mark.parametrize(("way", "words"), [("altered", "md5 differs"), ("short", "the connection broke off")])
def test_wrong_bytes_are_refused(
    way: str, words: str, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(monkeypatch, site, way, "good")
    with pytest.raises(RunError, match=words) as caught:
        fetch("toy", tmp_path, progress=False)
    assert site.url(way, "one.zip") in str(caught.value)
    assert "LEAP_DATA" in str(caught.value) and str(tmp_path) in str(caught.value)
    assert states(tmp_path) == ["missing", "missing"]


def test_server_gone(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, NOWHERE)
    with pytest.raises(RunError, match=r"127\.0\.0\.1:9/good/one\.zip: no connection .*one\.zip and two\.zip"):
        fetch("toy", tmp_path, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_damaged_file_is_replaced_and_another_container_is_kept(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(monkeypatch, site)
    other = zipped("two, packed by someone else")
    (tmp_path / "one.zip").write_bytes(CONTENT["one.zip"][:-20])
    (tmp_path / "two.zip").write_bytes(other)
    assert states(tmp_path) == ["damaged", "other"]
    fetch("toy", tmp_path, progress=False)
    assert states(tmp_path) == ["official", "other"]
    assert (tmp_path / "two.zip").read_bytes() == other and site.names == ["one.zip"]


def test_altered_entry_is_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, NOWHERE)
    data = bytearray(CONTENT["one.zip"])
    data[60] ^= 1  # in the stored text, which the entry's checksum covers
    (tmp_path / "one.zip").write_bytes(data)
    assert states(tmp_path) == ["damaged", "missing"]


def test_folder_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, NOWHERE)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"cannot make folder .*file/toy.*LEAP_DATA"):
        fetch("toy", tmp_path / "file" / "toy")


def test_full_disk_is_told_from_a_failed_download(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, site)
    usage = shutil.disk_usage(tmp_path)._replace(free=5)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(RunError, match=r"cannot write .*one\.zip: .* MB are needed, .* see to space"):
        fetch("toy", tmp_path, progress=False)


def test_folder_that_cannot_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, NOWHERE)
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(UsageError, match=f"cannot write to {tmp_path}; name another folder, or set LEAP_DATA"):
        fetch("toy", tmp_path)


def test_a_subset_is_part_of_a_set_and_stays(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, site)
    size = sum(map(len, CONTENT.values()))
    assert presence("toy", tmp_path) == ("missing", 0, (), size)
    np.savez(tmp_path / "subset.npz", images=np.zeros(3))
    (tmp_path / "notes.txt").write_text("not data")
    (tmp_path / ".trash").mkdir()
    assert presence("toy", tmp_path) == ("part", 0, ("subset.npz",), size)
    assert states(tmp_path) == ["missing", "missing", "other"]
    before = (tmp_path / "subset.npz").read_bytes()
    fetch("toy", tmp_path, progress=False)
    assert states(tmp_path) == ["official", "official", "other"]
    assert (tmp_path / "subset.npz").read_bytes() == before
    assert presence("toy", tmp_path) == ("present", 2, ("subset.npz",), 0)


def test_presence_of_a_few_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, NOWHERE)
    (tmp_path / "one.zip").write_bytes(zipped("packed by someone else"))
    assert presence("toy", tmp_path) == ("part", 1, (), len(CONTENT["two.zip"]))
    (tmp_path / "two.zip").write_bytes(CONTENT["two.zip"][:-20])
    assert presence("toy", tmp_path) == ("part", 1, (), len(CONTENT["two.zip"]))
    (tmp_path / "two.zip").unlink()
    (tmp_path / "one.zip").unlink()
    (tmp_path / "one.zip.part").write_bytes(b"PK")
    assert presence("toy", tmp_path).state == "missing"


def test_a_set_that_a_person_gets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register_by_hand(monkeypatch)
    assert presence("dolls", tmp_path) == ("by hand", 0, (), 0) and verify("dolls", tmp_path) == []
    told = rf"dolls cannot .*: they are shy\. Get it from https://example\.org/dolls \(terms: ask\) .* into {tmp_path}"
    with pytest.raises(UsageError, match=told):
        fetch("dolls", tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "dolls.npz").write_bytes(b"PK")
    assert states(tmp_path, "dolls") == ["damaged", "damaged"]
    with pytest.raises(UsageError, match=told):
        fetch("dolls", tmp_path)
    np.savez(tmp_path / "dolls.npz", images=np.zeros(3))
    assert states(tmp_path, "dolls") == ["other", "damaged"]
    assert fetch("dolls", tmp_path) == tmp_path
    assert presence("dolls", tmp_path).state == "present"
    monkeypatch.setenv("LEAP_DATA", str(tmp_path))
    with pytest.raises(UsageError, match=r"has no folder dolls.*holds dolls\.npz"):
        locate("dolls")


# integrity


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) * 2 // 3] ^= 0xFF
    path.write_bytes(data)


def write(path: Path) -> None:
    """A file of the kind that its name says, of numbers that do not compress."""
    noise = np.random.default_rng(0).integers(0, 256, 3000, np.uint8)
    if path.suffix == ".npz":
        np.savez(path, images=noise)
    elif path.suffix == ".mat":
        savemat(path, {"X": noise}, do_compression=True)
    elif path.suffix == ".gz":
        path.write_bytes(gzip.compress(noise.tobytes()))
    else:
        with tarfile.open(path, "w:gz" if path.suffix == ".tgz" else "w") as archive:
            archive.add(__file__, "file")


@pytest.mark.parametrize("name", ["a.npz", "a.mat", "a.gz", "a.tar.gz", "a.tgz", "a.tar"])
def test_another_copy_is_told_from_a_broken_one(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    assert integrity.state(path, "0" * 32) == "missing"
    write(path)
    assert integrity.state(path, "0" * 32) == "other" and integrity.state(path, None) == "whole"
    assert integrity.state(path, integrity.digest(path, "md5")) == "official"
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 3])
    assert integrity.state(path, "0" * 32) == "damaged"
    path.write_bytes(data)
    damage(path)
    plain = name == "a.tar"  # which has no checksum of what is in it
    assert integrity.state(path, None) == ("whole" if plain else "damaged")
    path.write_bytes(b"")
    assert integrity.state(path, None) == "damaged"


def test_a_file_of_an_unknown_kind_is_not_taken_for_whole(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"1")
    assert integrity.state(tmp_path / "a.bin", "0" * 32) == "damaged"


# the table


def test_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(UsageError, match="no data set 'Omniglott'; did you mean 'omniglot'"):
        locate("Omniglott")
    with pytest.raises(UsageError, match="no data set 'imagenet'; Known: omniglot, mnist"):
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


@pytest.mark.parametrize("row", [pytest.param(row, id=name) for name, row in DATASETS.items()])
def test_every_row_can_be_used(row: Dataset) -> None:
    assert row.name and row.title and row.licence and row.home.startswith("http")
    assert bool(row.files) != bool(row.by_hand and row.put)
    assert len({file.name for file in row.files}) == len(row.files)
    for file in row.files:
        assert Path(file.name).name == file.name and Path(file.name).suffix in integrity._CHECKS
        assert file.urls and all(url.startswith("http") and url.endswith(f"/{file.name}") for url in file.urls)
        assert file.md5 is None or re.fullmatch("[0-9a-f]{32}", file.md5)
        assert (file.size is None) == (file.md5 is None) and (file.size is None or file.size > 4000)


def test_no_two_files_have_one_checksum() -> None:
    sums = [file.md5 for row in DATASETS.values() for file in row.files if file.md5]
    assert len(sums) == len(set(sums)) == 22


def test_every_image_source_has_a_row() -> None:
    assert {source.folder for source in image_sources.SOURCES.values()} <= set(DATASETS)


@pytest.mark.parametrize(("name", "state"), [("mnist", "present"), ("fashion-mnist", "present"), ("kmnist", "part")])
def test_sizes_and_checksums_are_those_of_real_files(name: str, state: str, data_folder: Path) -> None:
    if not (data_folder / name).is_dir():
        pytest.skip(f"LEAP_DATA has no folder {name}")
    there = [file for file in verify(name, data_folder / name) if file.path.name.startswith("t10k")]
    assert [file.state for file in there] == ["official", "official"]
    sizes = {file.name: file.size for file in DATASETS[name].files}
    assert all(file.path.stat().st_size == sizes[file.path.name] for file in there)
    assert presence(name, data_folder / name).state in (state, "present")


def test_real_omniglot_is_whole() -> None:
    folder = os.environ.get("LEAP_DATA")
    if not folder:
        pytest.skip("LEAP_DATA is not set: it names the folder that holds omniglot/")
    assert {file.state for file in verify("omniglot")} <= {"official", "other"}
    assert fetch("omniglot", progress=False) == Path(folder, "omniglot")
