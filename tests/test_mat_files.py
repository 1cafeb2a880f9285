"""MATLAB's files as SVHN has them: read as scipy reads them, and refused where they are something else."""

import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from official_files import draw, write_svhn
from scipy.io import loadmat, savemat, whosmat

from leap.errors import UsageError
from tasks import image_sources, mat_files
from tasks.mat_files import read_svhn, shapes_of

IMAGES, LABELS = draw(12, 32, 32, 3)
COLUMNS = IMAGES.transpose(1, 2, 3, 0)
DIGITS = np.where(LABELS == 0, 10, LABELS).astype(np.uint8)[:, None]


def both(folder, packed=True, **changes):
    """The two files, of which the training one has these arrays; None leaves one out."""
    write_svhn(folder, packed=packed)
    arrays = {"X": COLUMNS, "y": DIGITS} | changes
    train = folder / "train_32x32.mat"
    savemat(train, {name: value for name, value in arrays.items() if value is not None}, do_compression=packed)
    return train, folder / "test_32x32.mat"


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("kind", [np.uint8, np.float64, np.int32, np.uint16])
def test_svhn_is_read_as_scipy_reads_it(tmp_path, packed, kind):
    made = write_svhn(tmp_path / "svhn", packed=packed)
    train, test = both(tmp_path / "svhn", packed, y=DIGITS.astype(kind), extra=np.zeros((3, 3)))
    (found,) = image_sources.load(["svhn"], tmp_path)
    loaded = [loadmat(path) for path in (train, test)]
    assert np.array_equal(found.images, np.concatenate([part["X"].transpose(3, 0, 1, 2) for part in loaded]))
    assert found.labels.tolist() == np.concatenate([part["y"][:, 0] % 10 for part in loaded]).tolist()
    assert found.labels.tolist() == [*LABELS, *made["test"][1]] and found.labels.dtype == np.int64
    assert found.split.tolist() == [True] * 12 + [False] * 11 and found.class_names == tuple("0123456789")
    for path in (train, test):
        assert {name: shape for name, (shape, _) in shapes_of(path).items()} == {n: s for n, s, _ in whosmat(path)}


def test_many_pictures_are_read_piece_by_piece(tmp_path, monkeypatch):
    monkeypatch.setattr(mat_files, "PIECE", 3072 * 5 + 7)
    write_svhn(tmp_path / "svhn", train=23, test=7)
    (found,) = image_sources.load(["svhn"], tmp_path)
    assert np.array_equal(found.images[:23], draw(23, 32, 32, 3)[0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"X": None}, r"has no array X, only \['y'\]"),
        ({"y": None}, "has no array y"),
        ({"X": COLUMNS.astype(float)}, r"holds X <f8 \[32, 32, 3, 12\], expected u1"),
        ({"X": COLUMNS[..., :2, :]}, r"holds X u1 \[32, 32, 2, 12\]"),
        ({"X": COLUMNS[:16]}, r"holds X u1 \[16, 32, 3, 12\]"),
        ({"X": COLUMNS.ravel()}, r"holds X u1 \[1, 36864\]"),
        ({"X": COLUMNS[..., :7]}, r"holds y \[12, 1\] for 7 images"),
        ({"X": COLUMNS[..., :0], "y": DIGITS[:0]}, "holds no pictures|damaged"),
        ({"y": DIGITS[:4]}, r"holds y \[4, 1\] for 12 images"),
        ({"y": DIGITS - 1}, "labels from 0 to 9, expected 1 to 9, and 10"),
        ({"y": DIGITS + 1}, "labels from 2 to 11"),
        ({"y": DIGITS + 0.5}, r"labels from 1\.5 to 10\.5"),
        ({"y": np.where(DIGITS == 3, np.nan, DIGITS)}, "labels from"),
        ({"y": DIGITS * 1j}, "array 'y' is not one of real numbers"),
        ({"y": "text"}, "array 'y' is not one of real numbers"),
        ({"y": {"a": DIGITS}}, "array 'y' is not one of real numbers"),
        ({"y": np.array([DIGITS, "a"], object)}, "array 'y' is not one of real numbers"),
        ({f"a{i}": DIGITS for i in range(20)}, "more than 16 arrays"),
        ({"deep": np.zeros((1, 1, 1, 1, 2))}, "an element of 20 bytes where at most 16 make sense"),
    ],
)
@pytest.mark.parametrize("packed", [True, False])
def test_files_that_hold_something_else_are_refused(tmp_path, packed, changes, message):
    train, test = both(tmp_path, packed, **changes)
    with pytest.raises(UsageError, match=message) as caught:
        read_svhn("svhn", train, test)
    assert str(train) in str(caught.value) and "put a whole copy in its place" in str(caught.value)


def test_other_versions_and_missing_files_are_refused(tmp_path):
    train, test = both(tmp_path)
    savemat(train, {"X": [1]}, format="4")
    with pytest.raises(UsageError, match=r"train_32x32\.mat begins with .*, expected MATLAB 5\.0"):
        read_svhn("svhn", train, test)
    for content in (b"", b"MATLAB 7.3 MAT-file" + bytes(500), b"MATLAB 5.0 MAT-file".ljust(124) + b"\x01\x00MI"):
        train.write_bytes(content)
        with pytest.raises(UsageError, match="expected MATLAB"):
            read_svhn("svhn", train, test)
    train.unlink()
    with pytest.raises(UsageError, match=r"there is no .*train_32x32\.mat"):
        read_svhn("svhn", train, test)


def compressed(content):
    packed = zlib.compress(content, 9)
    return struct.pack("<II", 15, len(packed)) + packed


def matrix(name, shape, claimed, numbers=b"", kind=2):
    """An array's element with any claims."""
    dims = struct.pack(f"<II{len(shape)}i", 5, 4 * len(shape), *shape).ljust(8 + -(-4 * len(shape) // 8) * 8, b"\0")
    content = (
        struct.pack("<IIII", 6, 8, 9, 0) + dims + struct.pack("<HH4s", 1, 1, name) + struct.pack("<II", kind, claimed)
    )
    return struct.pack("<II", 14, len(content) + claimed) + content + numbers


def test_boasts_and_bombs_cost_no_memory(tmp_path):
    train, test = both(tmp_path)
    header = test.read_bytes()[:128]
    good = matrix(b"y", (12, 1), 12, DIGITS.tobytes() + bytes(4))
    long = matrix(b"X", (32, 32, 3, 12), 36864, COLUMNS.tobytes("F") + bytes(50_000_000))
    count, many = 300_000, 349_520
    files = {
        "it ends .* too early": [matrix(b"X", (32, 32, 3, count), count * 3072), matrix(b"y", (count, 1), count)],
        "array 'X' claims": [matrix(b"X", (32, 32, 3, 2**31 - 1), 2**31)],
        r"array 'X' claims \[-1": [matrix(b"X", (-1, 32, 3, 12), 12)],
        "more behind its numbers": [good, long],
        "an element of 2000000000 bytes": [struct.pack("<IIII", 14, 8, 6, 2_000_000_000)],
        "more than 1073741824 bytes": [matrix(b"X", (32, 32, 3, many), many * 3072), matrix(b"y", (many, 1), many)],
        "an element of type 7": [struct.pack("<II", 7, 0)],
        "is damaged": [matrix(b"X", (1,), 8, bytes(8), kind=99)],
    }  # fmt: skip
    for message, elements in files.items():
        train.write_bytes(header + b"".join(compressed(element) for element in elements))
        tracemalloc.start()
        try:
            with pytest.raises(UsageError, match=message):
                read_svhn("svhn", train, test)
            # Rooms for pictures that are claimed are asked for, and never touched.
            assert tracemalloc.get_traced_memory()[1] < (1.1 * count * 3080 if "early" in message else 20_000_000)
        finally:
            tracemalloc.stop()


def test_damage_in_packed_pictures_is_found(tmp_path):
    train, test = both(tmp_path)
    whole = train.read_bytes()
    for at in np.linspace(137, len(whole) - 1, 40).astype(int):
        train.write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
        with pytest.raises(UsageError, match="train_32x32"):
            read_svhn("svhn", train, test)
    for cut in (130, 140, len(whole) // 2, len(whole) - 1):
        train.write_bytes(whole[:cut])
        with pytest.raises(UsageError, match="train_32x32"):
            read_svhn("svhn", train, test)


def test_little_more_than_the_pictures_is_in_memory(tmp_path):
    write_svhn(tmp_path / "svhn", train=3000, test=1000)
    tracemalloc.start()
    try:
        (found,) = image_sources.load(["svhn"], tmp_path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < found.images.nbytes + 6_000_000
