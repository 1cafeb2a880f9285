"""Images and labels from files: what is right is read exactly, what is wrong is refused before it costs memory."""

import io
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from official_files import idx, packed, write_idx

from leap.errors import UsageError
from tasks import image_files
from tasks.image_files import read_arrays, read_idx, read_npz, read_pair

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 5, 4), dtype=np.uint8)
LABELS = np.array([0, 1, 2, 0, 1, 2])
SPLIT = np.array(["train"] * 4 + ["test"] * 2)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file.gz"


# idx


@pytest.mark.parametrize("array", [IMAGES, IMAGES[:, 0], IMAGES[:, 0, 0]])
def test_an_idx_file_is_read_as_it_was_written(path, array):
    assert np.array_equal(read_idx(write_idx(path, array)), array)


def test_images_and_labels_that_belong_together(tmp_path, path):
    images, labels = write_idx(path, IMAGES), write_idx(tmp_path / "labels.gz", LABELS.astype(np.uint8))
    pixels, classes = read_pair(images, labels)
    assert np.array_equal(pixels[..., 0], IMAGES) and classes.dtype == np.int64 and classes.tolist() == LABELS.tolist()
    with pytest.raises(UsageError, match=r"labels\.gz has 1 dimensions, images have 3"):
        read_pair(labels, labels)
    with pytest.raises(UsageError, match=r"file\.gz has 3 dimensions, labels have 1"):
        read_pair(images, images)
    with pytest.raises(UsageError, match=r"labels\.gz holds 4 labels for the 6 images of file\.gz"):
        read_pair(images, write_idx(tmp_path / "labels.gz", LABELS[:4].astype(np.uint8)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (packed(idx(IMAGES, magic=b"\0\0\x0d\3")), "begins with 00 00 0d 03, an idx file of bytes begins with"),
        (packed(idx(IMAGES, magic=b"\0\0\x08\4")), "begins with 00 00 08 04"),
        (packed(idx(IMAGES, magic=b"\0\0\x08\0")), "begins with 00 00 08 00"),
        (packed(b""), "begins with nothing"),
        (packed(b"\0\0\x08\3\0\0"), "is damaged"),
        (packed(idx(IMAGES)[:-1]), r"should hold 120 bytes, 6 x 5 x 4, and holds only 119"),
        (packed(idx(IMAGES) + b"\0"), "should hold 120 bytes, 6 x 5 x 4, and holds more"),
        (packed(idx(IMAGES))[:-20], "is damaged"),
        (packed(idx(IMAGES))[:60] + b"?" + packed(idx(IMAGES))[61:], "is damaged"),
        (b"", "begins with nothing"),
        (b"<html>not found</html>", "is damaged"),
        (packed(idx(IMAGES, shape=(2**31, 2**31, 2**31))), "at most 1073741824 are read"),
    ],
)
def test_a_file_that_is_no_idx_file_is_refused_with_its_name_and_the_cure(path, content, message):
    path.write_bytes(content)
    with pytest.raises(UsageError, match=message) as caught:
        read_idx(path)
    assert str(path) in str(caught.value) and "put a whole copy in its place" in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    for name, read in (("a.gz", read_idx), ("a.npz", lambda p: read_npz("a", p))):
        with pytest.raises(UsageError, match=f"there is no .*{name}"):
            read(tmp_path / name)


def test_a_bomb_and_a_boastful_header_cost_no_memory(path, tmp_path):
    bomb = packed(idx(IMAGES) + bytes(200_000_000), 9)  # 200 MB behind a header for 120 bytes
    boast = packed(idx(IMAGES, shape=(1000, 1000, 1000)))
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (1000, 1000, 1000)})
    tracemalloc.start()
    try:
        for content in (bomb, boast):
            path.write_bytes(content)
            with pytest.raises(UsageError):
                read_idx(path)
        with pytest.raises(UsageError, match=r"images claims 1000000000 bytes and has 3"):
            read_npz("a", pack(tmp_path, images=header.getvalue() + b"abc"))
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


@given(st.binary(max_size=40), st.integers(0, 200))
@settings(
    max_examples=150, database=None, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
def test_any_bytes_give_an_array_or_a_usage_error(path, noise, at):
    whole = packed(idx(IMAGES), 1)
    for content in (noise, packed(noise, 1), whole[:at] + noise + whole[at + len(noise) :]):
        path.write_bytes(content)
        try:
            assert read_idx(path).dtype == np.uint8
        except UsageError as error:
            assert str(path) in str(error)


# npz


@pytest.mark.parametrize(
    "array",
    [IMAGES, np.asfortranarray(IMAGES), LABELS, SPLIT, IMAGES[:0], np.array(7), np.array(["ä", "bc"]), LABELS / 3],
)
def test_arrays_are_read_as_numpy_reads_them(tmp_path, array):
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "a.npz", some=array, other=[1])
        found = read_arrays(tmp_path / "a.npz", ["some"], ["absent"])
        assert found.keys() == {"some"} and found["some"].dtype == array.dtype
        assert np.array_equal(found["some"], array) and found["some"].shape == array.shape


@pytest.mark.parametrize(
    "header", ["__import__('os')", "{'descr': '|u1', 'shape': (1,)", "(" * 500, "{'descr': [('a', 'u1')]}"]
)
def test_an_arrays_header_is_never_python(tmp_path, header):
    text = header.ljust(117).encode() + b"\n"
    with pytest.raises(UsageError, match="images has no readable header"):
        read_npz("a", pack(tmp_path, images=b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text))


def test_a_member_packed_by_a_method_that_takes_much_memory_is_refused(tmp_path):
    plain = pack(tmp_path)
    with zipfile.ZipFile(plain) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(plain, "w", zipfile.ZIP_LZMA) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    with pytest.raises(UsageError, match="images is packed by method 14, only stored and deflated are read"):
        read_npz("a", plain)


def test_what_cannot_be_opened_is_no_damage(tmp_path):
    with pytest.raises(UsageError, match=r"cannot read .*: Is a directory"):
        read_idx(tmp_path)


def pack(folder, **changes):
    """An `.npz` file of arrays and of raw bytes; None leaves one out."""
    arrays = {"images": IMAGES, "labels": LABELS, "split": SPLIT} | changes
    target = folder / "set.npz"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, value in arrays.items():
            if value is None:
                continue
            if not isinstance(value, bytes):
                content = io.BytesIO()
                np.lib.format.write_array(content, np.asarray(value))
                value = content.getvalue()
            archive.writestr(f"{name}.npy", value)
    return target


def test_an_npz_file_is_read_as_it_was_written(tmp_path):
    found = read_npz("a", pack(tmp_path, source_names=np.array(["x"] * 6)))
    assert found.name == "a" and np.array_equal(found.images[..., 0], IMAGES)
    assert found.labels.tolist() == LABELS.tolist() and found.labels.dtype == np.int64
    assert found.split.tolist() == [True] * 4 + [False] * 2 and found.class_names == ("0", "1", "2")
    colour = np.stack([IMAGES] * 3, axis=-1)
    named = read_npz("a", pack(tmp_path, images=colour, labels=LABELS.astype(np.uint8), class_names=["x", "y", "z"]))
    assert np.array_equal(named.images, colour) and named.class_names == ("x", "y", "z")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": None, "split": None}, r"has no array labels and no split, only \['images'\]"),
        ({"images": IMAGES.astype(float)}, r"images float64 \[6, 5, 4, 1\], expected uint8"),
        ({"images": IMAGES[0]}, r"images uint8 \[5, 4\]"),
        ({"images": IMAGES[..., None].repeat(2, -1)}, r"images uint8 \[6, 5, 4, 2\]"),
        ({"images": np.zeros((6, 1, 600), np.uint8)}, "1 x 600, at most 512 x 512"),
        ({"images": IMAGES[:5]}, r"holds 5 images, int64 labels \[6\]"),
        ({"images": IMAGES[:0], "labels": LABELS[:0], "split": SPLIT[:0]}, r"images uint8 \[0, 5, 4, 1\]"),
        ({"labels": LABELS.astype(float)}, r"labels float64 \[6\], expected int64"),
        ({"labels": np.array(["a"] * 6)}, "labels <U1"),
        ({"labels": LABELS - 1}, "labels from -1 to 1 for 2 classes"),
        ({"labels": LABELS * 10**12}, "6 labels up to 2000000000000; number the classes from 0"),
        ({"class_names": ["x", "y"]}, "labels from 0 to 2 for 2 classes"),
        ({"split": SPLIT[:5]}, r"split \[5\]"),
        ({"split": np.array(["train"] * 5 + ["dev"])}, "a split with 'dev', expected train and test"),
        ({"split": np.arange(6)}, "a split with 0"),
        ({"split": np.array(["train"] * 6)}, "holds no test images of a"),
        ({"split": np.array(["test"] * 6)}, "holds no training images of a"),
        ({"images": b"not an array"}, "is damaged"),
        ({"images": np.array([print, None], object)}, "Python objects, which are not read"),
    ],
)
def test_an_npz_file_that_holds_something_else_is_refused(tmp_path, changes, message):
    target = pack(tmp_path, **changes)
    with pytest.raises(UsageError, match=message) as caught:
        read_npz("a", target)
    assert str(target) in str(caught.value) and "put a whole copy in its place" in str(caught.value)


def test_a_damaged_npz_file_is_refused(tmp_path):
    whole = pack(tmp_path).read_bytes()
    for content in (b"", whole[:50], whole[:-30], whole[:80] + b"????" + whole[84:], b"PK\3\4nothing"):
        (tmp_path / "set.npz").write_bytes(content)
        with pytest.raises(UsageError, match=r"set\.npz .*put a whole copy"):
            read_npz("a", tmp_path / "set.npz")


@given(st.binary(min_size=1, max_size=8), st.floats(0, 1))
@settings(
    max_examples=200, database=None, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
def test_spoiled_npz_files_give_a_set_or_a_usage_error(tmp_path, noise, at):
    whole = pack(tmp_path).read_bytes()
    begin = int(at * len(whole))
    (tmp_path / "spoiled.npz").write_bytes(whole[:begin] + noise + whole[begin + len(noise) :])
    try:
        assert image_files.check(found := read_npz("a", tmp_path / "spoiled.npz"), tmp_path) is found
    except UsageError as error:
        assert "spoiled.npz" in str(error)
