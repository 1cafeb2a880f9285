"""Spoiled files of every official form: each gives a set that keeps its promises, or an error meant for a person."""

import gzip
import io
import random
import tarfile
import time
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from official_files import (
    cifar10_files,
    class_folders,
    draw,
    pack_zip,
    packed,
    tar,
    unpack,
    write_gtsrb,
    write_kmnist,
    write_mnist,
    write_svhn,
    write_usps,
)

from leap.errors import UsageError
from tasks import image_sources
from tasks.image_files import check

SECONDS = 5
"""What a spoiled file may take at most; whole ones take milliseconds."""


def small_tree(folder: Path, kind: str, form: str) -> None:
    images, labels = draw(12, 9, 7, 3, classes=2)
    files = class_folders(images, labels, kind=kind)
    if form == "folder":
        unpack(folder, files)
    else:
        folder.mkdir(parents=True)
        (folder / f"faces.{form}").write_bytes({"zip": pack_zip, "tar.gz": tar}[form](files))


def cifar(folder: Path) -> None:
    unpack(folder, cifar10_files(1)[0])


def cifar_archive(folder: Path) -> None:
    unpack(folder, {"cifar-10-python.tar.gz": tar(cifar10_files(1)[0])})


FORMS = {
    "idx": ("mnist", lambda folder: write_mnist(folder, 10, 10, side=16)),
    "npz": ("kmnist", lambda folder: write_kmnist(folder, 10, 10)),
    "cifar's pickles": ("cifar10", cifar),
    "cifar's archive": ("cifar10", cifar_archive),
    "mat": ("svhn", lambda folder: write_svhn(folder, 3, 3)),
    "mat, stored": ("svhn", lambda folder: write_svhn(folder, 3, 3, packed=False)),
    "usps": ("usps", lambda folder: write_usps(folder, 3, 3)),
    "signs": ("gtsrb", lambda folder: write_gtsrb(folder, 43, 2)),
    **{
        f"{kind} in a {form}": ("orl_faces", lambda folder, kind=kind, form=form: small_tree(folder, kind, form))
        for kind, form in (("PNG", "folder"), ("JPEG", "folder"), ("PPM", "folder"), ("BMP", "folder"),
                           ("PNG", "zip"), ("BMP", "tar.gz"))
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """A home with the whole files of each form, by form."""
    homes = {}
    for number, (form, (task, write)) in enumerate(FORMS.items()):
        homes[form] = tmp_path_factory.mktemp(f"form{number}")
        write(homes[form] / image_sources.SOURCES[task].folder)
        image_sources.load([task], homes[form])  # whole files are read
    return homes


def spoiled(content: bytes, dice: random.Random) -> bytes:
    """The content with bytes flipped, cut, put in, doubled, or large numbers in their place."""
    at = dice.randrange(max(len(content), 1))
    length = dice.choice([1, 1, 2, 4, 8, 40])
    way = dice.randrange(6)
    if way == 0:
        return content[:at]
    if way == 1:
        return content[:at] + content[at + length :]
    if way == 2:
        return content[:at] + content[at : at + length] + content[at:]
    noise = (
        dice.choice([b"\xff", b"\x7f", b"\x00", b"\x80", b"0", b"9", b"-"]) * length
        if way == 3
        else dice.randbytes(length)
    )
    return content[:at] + noise + content[at + (0 if way == 4 else length) :]


def spoiled_inside(name: str, content: bytes, dice: random.Random) -> bytes:
    """The same, where the checksums of what the content is packed in do not betray it."""
    if name.endswith((".npz", ".zip")):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            files = {entry: archive.read(entry) for entry in archive.namelist()}
        victim = dice.choice(sorted(files))
        return pack_zip(files | {victim: spoiled_inside(victim, files[victim], dice)})
    if name.endswith(".tar.gz") and dice.random() < 0.7:
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            files = {m.name: archive.extractfile(m).read() for m in archive if m.isreg()}
        victim = dice.choice(sorted(files))
        return tar(files | {victim: spoiled_inside(victim, files[victim], dice)})
    if name.endswith(".gz"):
        return packed(spoiled(gzip.decompress(content), dice), 1)
    return spoiled(content, dice)


@pytest.mark.parametrize("form", FORMS)
@given(seed=st.integers(0, 2**32), inside=st.booleans(), times=st.integers(1, 3))
@settings(
    max_examples=40, database=None, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
def test_a_spoiled_file_gives_a_set_or_a_usage_error(originals, form, seed, inside, times):
    task, home, dice = FORMS[form][0], originals[form], random.Random(seed)
    victim = dice.choice(sorted(path for path in home.rglob("*") if path.is_file()))
    whole = content = victim.read_bytes()
    for _ in range(times):
        try:
            content = (spoiled_inside if inside else lambda _, c, d: spoiled(c, d))(victim.name, content, dice)
        except (OSError, EOFError, zipfile.BadZipFile, tarfile.TarError, NotImplementedError, ValueError):
            # spoiled so much already that it cannot be opened (NotImplementedError: a compression that zipfile lacks)
            content = spoiled(content, dice)
    victim.write_bytes(content)
    begin = time.monotonic()
    try:
        (found,) = image_sources.load([task], home)
        assert check(found, victim) is found and found.images.shape[1:3] == (32, 32)
    except UsageError as error:
        assert str(home) in str(error) and len(str(error)) < 2000
    finally:
        victim.write_bytes(whole)
    assert time.monotonic() - begin < SECONDS
