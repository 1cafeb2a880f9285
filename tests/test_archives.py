"""Folders, zips and tars, read in place: what leads out of them, takes too much or is damaged is refused."""

import io
import os
import stat
import tarfile
import tracemalloc
import zipfile

import pytest
from official_files import pack_zip, packed, tar, unpack

from leap.errors import UsageError
from tasks import archives

FILES = {"a/1.txt": b"one", "a/2.txt": bytes(1024), "b/1.txt": b"", "c": b"x" * 3000}
MAKE = {
    "folder": lambda folder: unpack(folder / "folder", FILES),
    "set.zip": lambda folder: write(folder / "set.zip", pack_zip(FILES)),
    "set.tar.gz": lambda folder: write(folder / "set.tar.gz", tar(FILES)),
    "set.tar": lambda folder: write(folder / "set.tar", plain_tar(FILES)),
}


def write(path, content):
    path.write_bytes(content)
    return path


def plain_tar(files):
    import gzip

    return gzip.decompress(tar(files))


def entry(name, kind=tarfile.REGTYPE, content=b"", **changes):
    """A tar of one entry, as its fields are given."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:") as archive:
        info = tarfile.TarInfo(name)
        info.type, info.size = kind, len(content)
        for field, value in changes.items():
            setattr(info, field, value)
        archive.addfile(info, io.BytesIO(content))
    return made.getvalue()


def everything(path, largest=1 << 20):
    return {name: bytes(content) for name, content in archives.contents(path, archives.names(path), largest)}


@pytest.mark.parametrize("form", MAKE)
def test_files_are_read_from_folders_and_archives_alike(tmp_path, form):
    path = MAKE[form](tmp_path)
    assert archives.names(path) == sorted(FILES) and everything(path) == FILES
    assert [name for name, _ in archives.contents(path, {"b/1.txt"}, 10)] == ["b/1.txt"]
    with pytest.raises(UsageError, match=r"has '?.*c'? with 3000 bytes, at most 2999 are read"):
        everything(path, 2999)


@pytest.mark.parametrize("form", MAKE)
def test_what_systems_leave_behind_is_not_there(tmp_path, form):
    junk = {"._c": b"x", ".hidden/1.txt": b"x", "__MACOSX/a/1.txt": b"x", "a/.DS_Store": b"x"}
    make = {
        "folder": lambda f: unpack(tmp_path / "folder", f),
        "set.zip": pack_zip,
        "set.tar.gz": tar,
        "set.tar": plain_tar,
    }
    made = make[form](FILES | junk)
    path = made if form == "folder" else write(tmp_path / form, made)
    assert archives.names(path) == sorted(FILES)


@pytest.mark.parametrize(
    "name", ["../evil.txt", "a/../../evil.txt", "/etc/evil.txt", "C:\\evil.txt", "a\\..\\..\\evil"]
)
@pytest.mark.parametrize("ending", ["zip", "tar", "tar.gz"])
def test_a_name_that_leads_out_is_refused_and_nothing_is_written(tmp_path, name, ending):
    content = {"zip": pack_zip, "tar": plain_tar, "tar.gz": tar}[ending]({"good.txt": b"x", name: b"evil"})
    path = write(tmp_path / f"set.{ending}", content)
    with pytest.raises(UsageError, match=r"set\..* has an entry '.*evil.*', a name that leads out") as caught:
        everything(path)
    assert repr(name) in str(caught.value) or name in str(caught.value)
    assert list(tmp_path.iterdir()) == [path]


KINDS = (
    tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.GNUTYPE_SPARSE,
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_links_and_devices_in_a_tar_are_refused(tmp_path, kind):
    path = write(tmp_path / "set.tar", entry("a/1.txt", kind, linkname="/etc/passwd"))
    with pytest.raises(UsageError, match=r"entry 'a/1.txt' that is no plain file"):
        archives.names(path)


def test_links_in_a_zip_are_refused(tmp_path):
    info = zipfile.ZipInfo("a/1.txt")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(UsageError, match=r"entry 'a/1.txt' that is a link or a device"):
        archives.names(tmp_path / "set.zip")


def test_links_in_a_folder_may_not_leave_it(tmp_path):
    folder = unpack(tmp_path / "folder", FILES)
    (tmp_path / "secret.txt").write_bytes(b"secret")
    (folder / "a" / "3.txt").symlink_to(folder / "c")
    assert everything(folder)["a/3.txt"] == FILES["c"]
    (folder / "a" / "4.txt").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(UsageError, match=r"a/4\.txt is a link to .*secret\.txt, outside"):
        archives.names(folder)
    (folder / "a" / "4.txt").unlink()
    (folder / "round").symlink_to(folder)
    with pytest.raises(UsageError, match=r"round is a link to a folder"):
        archives.names(folder)


def test_a_pipe_in_a_files_place_does_not_wait_forever(tmp_path):
    folder = unpack(tmp_path / "folder", FILES)
    os.mkfifo(folder / "a" / "pipe")
    with pytest.raises(UsageError, match="a/pipe is no plain file"):
        everything(folder)


def test_bombs_are_refused_before_they_cost_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "LARGEST", 1 << 22)
    bomb = {f"{i}.txt": bytes(1 << 20) for i in range(8)}
    paths = [write(tmp_path / "set.zip", pack_zip(bomb)), write(tmp_path / "set.tar.gz", tar(bomb))]
    boast = bytearray(entry("a", content=b"x"))
    boast[124:136] = b"77777777777\0"  # 8 GiB
    boast[148:156] = b"%06o\0 " % (sum(boast[:148]) + 8 * 32 + sum(boast[156:512]))
    paths.append(write(tmp_path / "boast.tar", bytes(boast)))
    tracemalloc.start()
    try:
        for path in paths:
            with pytest.raises(UsageError, match=f"{path.name} .*unpack it|{path.name} has 'a' with 8589934591 bytes"):
                everything(path)
        assert tracemalloc.get_traced_memory()[1] < 12_000_000
    finally:
        tracemalloc.stop()
    monkeypatch.setattr(archives, "MOST_FILES", 3)
    for form in MAKE:
        with pytest.raises(UsageError, match="more than 3 entries"):
            archives.names(MAKE[form](tmp_path))


def test_a_tar_whose_offsets_go_backwards_ends(tmp_path):
    # A size below zero, in base 256: readers that believe it come back to the same entry forever.
    looped = bytearray(entry("a", content=b""))
    looped[124:136] = b"\xff" * 10 + b"\xfc\x00"
    looped[148:156] = b"%06o\0 " % (sum(looped[:148]) + 8 * 32 + sum(looped[156:512]))
    for kind in (b"0", b"x", b"L", b"g"):
        looped[156:157] = kind
        looped[148:156] = b"%06o\0 " % (sum(looped[:148]) + 8 * 32 + sum(looped[156:512]))
        with pytest.raises(UsageError, match=r"set\.tar "):
            archives.names(write(tmp_path / "set.tar", bytes(looped)))


@pytest.mark.parametrize("form", ["set.zip", "set.tar.gz", "set.tar"])
def test_a_cut_or_altered_archive_is_refused(tmp_path, form):
    path = MAKE[form](tmp_path)
    whole = path.read_bytes()
    name = whole.index(b"b/1.txt") if form != "set.tar.gz" else 100
    for content in (whole[: len(whole) // 2], b"", whole[:name] + b"?" + whole[name + 1 :], b"<html>"):
        with pytest.raises(UsageError, match=form):
            everything(write(path, content))
    with pytest.raises(UsageError, match="there is no"):
        archives.names(tmp_path / "no" / form)


def test_a_name_that_is_there_twice_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("a", "1")
        archive.writestr("a", "2")
    with pytest.raises(UsageError, match="holds 'a' twice"):
        archives.names(tmp_path / "set.zip")


def test_a_zip_packed_by_another_method_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "set.zip", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("a", "1")
    with pytest.raises(UsageError, match="packs 'a' by method 12"):
        everything(tmp_path / "set.zip")


def test_zeros_alone_follow_the_last_entry(tmp_path):
    path = write(tmp_path / "set.tar", plain_tar(FILES))
    content = bytearray(path.read_bytes())
    content[1024] ^= 1  # the second entry's header, which tarfile takes for the end
    with pytest.raises(UsageError, match=r"set\.tar is damaged \(what follows the last readable entry"):
        archives.names(write(path, bytes(content)))
    assert packed(b"")[:2] == archives._GZIP
