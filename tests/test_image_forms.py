"""Which of a data set's forms is read, and the forms that are a few arrays: Kuzushiji-MNIST's and USPS's."""

import tracemalloc

import numpy as np
import pytest
from official_files import draw, packed, usps_text, write_idx, write_kmnist, write_mnist, write_svhn, write_usps

from leap.errors import UsageError
from tasks import image_sources
from tasks import usps_text as usps
from tasks.usps_text import read_part


def test_kmnists_arrays_go_before_its_test_half(tmp_path):
    made = write_kmnist(tmp_path / "kmnist")
    write_mnist(tmp_path / "kmnist", test=20, seed=7)
    (found,) = image_sources.load(["kmnist"], tmp_path)
    whole = np.concatenate([made["train"][0], made["test"][0]])
    assert np.array_equal(found.images[:, 2:-2, 2:-2, 0], whole) and found.split.sum() == 30
    assert found.labels.tolist() == [*made["train"][1], *made["test"][1]]


def test_kmnists_arrays_and_idx_files_give_the_same_set(tmp_path):
    made = write_kmnist(tmp_path / "a" / "kmnist")
    (tmp_path / "b" / "kmnist").mkdir(parents=True)
    for part, name in (("train", "train"), ("test", "t10k")):
        write_idx(tmp_path / "b" / "kmnist" / image_sources.IMAGES.format(name), made[part][0])
        write_idx(tmp_path / "b" / "kmnist" / image_sources.LABELS.format(name), made[part][1].astype(np.uint8))
    (one,), (two,) = (image_sources.load(["kmnist"], tmp_path / place) for place in "ab")
    for a, b in zip(one[1:4], two[1:4], strict=True):
        assert np.array_equal(a, b)


@pytest.mark.parametrize(
    ("file", "array", "message"),
    [
        (
            "train-labels",
            np.zeros(29, np.uint8),
            r"labels\.npz holds labels uint8 \[29\] for the 30 of kmnist-train-imgs",
        ),
        ("train-labels", np.zeros(30), r"labels\.npz holds labels float64"),
        ("train-labels", np.full(30, 10, np.uint8), "labels from 0 to 10 for 10 classes"),
        ("train-imgs", np.zeros((30, 28, 28)), r"imgs\.npz holds images float64 \[30, 28, 28\]"),
        ("train-imgs", np.zeros((30, 27, 28), np.uint8), r"holds images of \(27, 28\) and of \(28, 28\)"),
    ],
)
def test_kmnists_arrays_that_are_none_are_refused(tmp_path, file, array, message):
    write_kmnist(tmp_path / "kmnist")
    np.savez(tmp_path / "kmnist" / f"kmnist-{file}.npz", array)
    with pytest.raises(UsageError, match=message):
        image_sources.load(["kmnist"], tmp_path)


@pytest.mark.parametrize(
    ("task", "write", "file"),
    [
        ("kmnist", write_kmnist, "kmnist-test-labels.npz"),
        ("usps", write_usps, "zip.train.gz"),
        ("usps", write_usps, "zip.test.gz"),
        ("svhn", write_svhn, "test_32x32.mat"),
    ],
)
def test_half_a_distribution_is_refused_though_a_subset_is_there(tmp_path, task, write, file):
    write(tmp_path / task)
    images, labels = draw(20, 16, 16)
    np.savez(tmp_path / task / "subset.npz", images=images, labels=labels, split=["train", "test"] * 10)
    (tmp_path / task / file).unlink()
    with pytest.raises(UsageError, match=f"there is no .*{file}; put a whole copy in its place"):
        image_sources.load([task], tmp_path)


# USPS


def test_usps_is_doubled_and_rounded_to_the_nearest_grey(tmp_path):
    made = write_usps(tmp_path / "usps")
    (found,) = image_sources.load(["usps"], tmp_path)
    values = np.concatenate([made["train"][0], made["test"][0]])  # thousandths
    exact = 255 * (values + 1000) / 2000
    small = found.images[:, ::2, ::2, 0]
    assert np.abs(small - exact).max() <= 0.5 and found.images.shape == (30, 32, 32, 1)
    assert np.array_equal(found.images, small.repeat(2, 1).repeat(2, 2)[..., None])
    assert found.labels.tolist() == [*made["train"][1], *made["test"][1]] and found.split.sum() == 20


def test_every_thousandth_has_its_grey_and_halves_go_to_the_even_one(tmp_path):
    values = np.resize(np.arange(-1000, 1001), 8 * 256).reshape(8, 16, 16)
    (tmp_path / "a.gz").write_bytes(packed(usps_text(values / 1000, np.arange(8))))
    images, labels = read_part(tmp_path / "a.gz")
    grey = dict(zip(values.ravel().tolist(), images.ravel().tolist(), strict=True))
    assert {v: grey[v] for v in (-1000, -800, -400, 0, 400, 800, 1000)} == {
        -1000: 0, -800: 26, -400: 76, 0: 128, 400: 178, 800: 230, 1000: 255,
    }  # fmt: skip
    for value, found in grey.items():
        assert abs(2000 * found - 255 * (value + 1000)) <= 1000
    assert labels.tolist() == list(range(8))


def test_the_real_digits_survive_the_text(data_folder, tmp_path):
    """The text of greys g / 255 in four decimals gives the same greys back."""
    (real,) = image_sources.load(["usps"], data_folder)
    small, labels = real.images[:400, ::2, ::2, 0], real.labels[:400]
    (tmp_path / "a.gz").write_bytes(packed(usps_text(small / 127.5 - 1, labels)))
    images, found = read_part(tmp_path / "a.gz")
    assert np.array_equal(images, small) and np.array_equal(found, labels)


LINE = b"3.0000 " + b"-1.000 " * 256 + b"\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (LINE + LINE[:-9] + b"\n", "has 256 numbers in line 2, expected a digit and 256 values"),
        (LINE + b"\n", "has 0 numbers in line 2"),
        (LINE[:-1] + b"1 \n", "has 258 numbers in line 1"),
        (b"1" * 100_000, "has 1 numbers in line 1"),
        (LINE.replace(b"3.0000", b"10"), r"has digit 10\.0 in line 1, expected 0 to 9"),
        (LINE.replace(b"3.0000", b"3.5"), r"has digit 3\.5"),
        (LINE.replace(b"3.0000", b"nan"), "has digit nan"),
        (LINE.replace(b"-1.000 ", b"1.001 ", 1), r"has values from -1\.0 to 1\.001 in line 1"),
        (LINE.replace(b"-1.000 ", b"nan ", 1), "has values from nan to nan"),
        (LINE.replace(b"-1.000 ", b"x ", 1), "has something else than numbers in line 1"),
        (LINE.replace(b"-1.000 ", b"\xff ", 1), "has something else than numbers in line 1"),
        (b"", "holds no digits"),
    ],
)
def test_text_that_is_none_is_refused_with_the_line(tmp_path, content, message):
    write_usps(tmp_path / "usps")
    (tmp_path / "usps" / "zip.train.gz").write_bytes(packed(content))
    with pytest.raises(UsageError, match=rf"zip\.train\.gz {message}.*put a whole copy in its place"):
        image_sources.load(["usps"], tmp_path)


def test_text_that_is_cut_or_a_bomb_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "a.gz"
    whole = packed(LINE * 50)
    for content in (whole[:-10], whole[:30], LINE, b"\x1f\x8b"):
        path.write_bytes(content)
        with pytest.raises(UsageError, match=r"a\.gz is damaged"):
            read_part(path)
    monkeypatch.setattr(usps, "LARGEST", 4 * 256 * 10)
    path.write_bytes(whole)
    with pytest.raises(UsageError, match=r"has more than 10 lines"):
        read_part(path)
    path.write_bytes(packed(b" " * 50_000_000))  # a line without end
    tracemalloc.start()
    try:
        with pytest.raises(UsageError, match="has 0 numbers in line 1"):
            read_part(path)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def test_little_more_than_twice_the_pictures_is_in_memory(tmp_path):
    write_mnist(tmp_path / "mnist", train=6000, test=1000)
    write_usps(tmp_path / "usps", train=600, test=200)
    for name in ("mnist", "usps"):
        tracemalloc.start()
        try:
            (found,) = image_sources.load([name], tmp_path)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 2.2 * found.images.nbytes + 1_500_000
