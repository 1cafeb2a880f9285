"""Class folders as data sets: classes, split, order and pixels, and pictures that cannot be read."""

import io
import logging
import struct
import tracemalloc
import warnings
import zlib

import numpy as np
import pytest
from official_files import (
    EMPTY_LETTERS,
    class_folders,
    draw,
    pack_zip,
    picture,
    tar,
    unpack,
    write_gtsrb,
    write_notmnist,
)
from PIL import Image

from leap.errors import UsageError
from tasks import image_sources, picture_trees, pictures
from tasks.picture_trees import read_tree
from tasks.pictures import decode

GREY, LABELS = draw(30, 32, 32, classes=3)
NAMES = np.array(["ant", "bee", "cat"])[LABELS]
FILES = class_folders(GREY, NAMES, "insects/")


def in_order(images, labels):
    """As a tree has them: by class and then by number."""
    order = np.argsort(labels, kind="stable")
    return images[order], labels[order]


# Trees


@pytest.mark.parametrize("form", ["folder", "zip", "tar.gz"])
def test_a_tree_is_read_alike_from_a_folder_and_from_archives(tmp_path, form):
    path = tmp_path / f"mine.{form}"
    if form == "folder":
        unpack(path, FILES | {"insects/README": b"text"})
    else:
        path.write_bytes({"zip": pack_zip, "tar.gz": tar}[form](FILES | {"insects/README": b"text"}))
    found = read_tree("mine", path)
    images, labels = in_order(GREY, LABELS)
    assert found.class_names == ("ant", "bee", "cat") and found.labels.tolist() == labels.tolist()
    assert np.array_equal(found.images[..., 0], images)  # of 32 x 32, so as they were
    assert (
        np.array_equal(found.split, pictures.halve(labels, "mine"))
        and np.bincount(labels[~found.split]).tolist() == [2] * 3
    )


def test_train_and_test_are_the_split(tmp_path):
    train, test = (
        class_folders(GREY[rows], NAMES[rows], part) for rows, part in ((slice(18), "train/"), (slice(18, 30), "test/"))
    )
    found = read_tree("mine", unpack(tmp_path, {**test, **train}))
    images, labels = (np.concatenate(both) for both in zip(
        in_order(GREY[:18], LABELS[:18]), in_order(GREY[18:], LABELS[18:]), strict=True
    ))  # fmt: skip
    assert np.array_equal(found.images[..., 0], images) and found.labels.tolist() == labels.tolist()
    assert found.split.tolist() == [True] * 18 + [False] * 12
    only = read_tree("mine", unpack(tmp_path / "half", train))
    assert 0 < only.split.sum() < len(only.split) == 18  # one part alone is split like any tree


def test_repeated_pictures_are_left_out_before_the_split(tmp_path):
    twice = {f"insects/cat/x{i}.png": FILES["insects/ant/000.png"] for i in range(5)}
    assert len(read_tree("mine", unpack(tmp_path, FILES | twice)).images) == 30


def test_a_tree_is_grey_only_if_every_picture_is(tmp_path):
    colour = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    found = read_tree("mine", unpack(tmp_path, FILES | {"insects/bee/zzz.png": picture(colour)}))
    assert found.images.shape == (31, 32, 32, 3)
    assert np.array_equal(found.images[20], colour)  # the last of the second class
    assert np.array_equal(found.images[0], GREY[0][..., None].repeat(3, -1))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"insects/1.png": FILES["insects/ant/000.png"]}, r"has insects/1\.png where no class is"),
        ({"insects/ant/deep/1.png": FILES["insects/ant/000.png"]}, r"has insects/ant/deep/1\.png where no class is"),
        ({"insects/ant/1.gif": b"GIF89a"}, r"has insects/ant/1\.gif; PNG, JPEG, PPM, PGM and BMP are read"),
        ({"insects/ant/1.png": b"no picture"}, r"picture insects/ant/1\.png that cannot be read \(cannot identify"),
        ({"insects/ant/1.png": b""}, r"picture insects/ant/1\.png that cannot be read"),
        ({"insects/ant/1.png": FILES["insects/ant/000.png"][:-40]}, r"picture insects/ant/1\.png that cannot be read"),
    ],
)
@pytest.mark.parametrize("form", ["folder", "zip"])
def test_a_tree_that_is_none_is_refused_with_the_file(tmp_path, form, changes, message):
    path = tmp_path / "mine.zip"
    path.write_bytes(pack_zip(FILES | changes))
    with pytest.raises(UsageError, match=message) as caught:
        read_tree("mine", path if form == "zip" else unpack(tmp_path / "mine", FILES | changes))
    assert str(tmp_path / "mine") in str(caught.value)


def test_too_few_classes_and_classes_of_one_part_are_refused(tmp_path):
    one = {name: content for name, content in FILES.items() if "ant" in name}
    for files, message in (
        ({"a.txt": b""}, "has no pictures"),
        (one, "pictures of one class, 'ant'"),
        ({f"{part}/{name[8:]}": content for part in ("train", "test") for name, content in FILES.items()
          if part == "train" or "ant" in name}, "no picture of class 'bee' in test/"),
        ({f"{i}/1.png": FILES["insects/ant/000.png"] for i in range(3)}, "holds no test images"),
    ):  # fmt: skip
        path = tmp_path / "mine.zip"
        path.write_bytes(pack_zip(files))
        with pytest.raises(UsageError, match=message):
            read_tree("mine", path)


def test_a_path_is_a_task(tmp_path, monkeypatch):
    unpack(tmp_path / "birds", FILES)
    (tmp_path / "Bees.TAR.gz").write_bytes(tar(FILES))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("./birds", "~/birds", str(tmp_path / "birds"), "birds/", "./x/../birds"):
        (found,) = image_sources.load([name])
        assert found.name == "birds" == image_sources.shown(name) and len(found.images) == 30
    assert [found.name for found in image_sources.load(["./birds", "./Bees.TAR.gz"])] == ["birds", "Bees"]
    with pytest.raises(UsageError, match="'birds' is named twice"):
        image_sources.load(["./birds", "~/birds"])
    for name in ("./nothing", "~nobody-of-that-name/x", "./\0"):
        with pytest.raises(UsageError, match="no folder"):
            image_sources.load([name])
    with pytest.raises(UsageError, match=r"no image set 'birds'.*or a path: \./my/pictures"):
        image_sources.load(["birds"])


def test_little_more_than_the_pictures_is_in_memory(tmp_path):
    side, count = 256, 300
    images, labels = draw(count, side, side, 3, classes=3)
    path = unpack(tmp_path, class_folders(images, labels, kind="BMP"))
    del images
    tracemalloc.start()
    try:
        found = read_tree("mine", path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.images.nbytes == count * 32 * 32 * 3
    assert peak < 2 * found.images.nbytes + 3_000_000  # a few decoded pictures; all of them would be 59 MB


# Pixels


def test_pixels_are_means_over_areas_and_the_whole_picture_is_kept():
    left = np.zeros((64, 128), np.uint8)
    left[:, :64] = 200
    small = decode(picture(left))
    assert small.shape == (32, 32, 1) and (small[:, :15] == 200).all() and (small[:, 17:] == 0).all()
    checks = np.indices((320, 320)).sum(0) % 2 * 255  # finer than any small pixel
    assert np.abs(decode(picture(checks.astype(np.uint8))).astype(int) - 127).max() <= 2
    noise = np.random.default_rng(0).integers(0, 256, (300, 200, 3), dtype=np.uint8)
    assert decode(picture(noise)).mean() == pytest.approx(noise.mean(), abs=1)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "PPM"])
def test_kinds_without_loss_give_the_same_pixels(kind):
    colour = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    assert np.array_equal(decode(picture(colour, kind)), decode(picture(colour)))
    grey = colour[..., 0].copy()
    assert decode(picture(grey, kind)).shape == (32, 32, 1)
    assert np.array_equal(decode(picture(grey, kind)), decode(picture(grey)))


def test_every_mode_of_pixels_becomes_grey_or_colour():
    for mode, channels in (("1", 1), ("L", 1), ("LA", 1), ("I;16", 1), ("P", 3), ("RGB", 3), ("RGBA", 3), ("CMYK", 3)):
        made = io.BytesIO()
        Image.new(mode, (8, 8)).save(made, "JPEG" if mode == "CMYK" else "PNG")
        assert decode(made.getvalue()).shape == (32, 32, channels), mode
    deep = np.full((8, 8), 0xABCD, np.uint16)
    for content in (picture(deep), b"P5 8 8 65535 " + deep.astype(">u2").tobytes()):
        assert (decode(content) == 0xAB).all()  # 16 bits of grey
    clear = np.full((8, 8, 4), 77, np.uint8)
    clear[..., 3] = 0
    assert (decode(picture(clear)) == 77).all()  # transparency is dropped, not blended
    with pytest.raises(ValueError, match="floating-point"):
        decode(b"Pf\n2 2\n-1.0\n" + bytes(16))
    for kind in ("GIF", "TIFF", "WEBP"):
        with pytest.raises(ValueError, match="cannot identify"):
            decode(picture(GREY[0], kind))


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def boastful(width, height):
    """A PNG that claims to be large and holds nothing."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_large_pictures_and_bombs_are_refused_before_they_are_unpacked(tmp_path):
    assert decode(picture(np.zeros((1, 4096), np.uint8))).shape == (32, 32, 1)
    with pytest.raises(ValueError, match="4097 x 1 pixels, at most 4096 x 4096 are read"):
        decode(picture(np.zeros((1, 4097), np.uint8)))
    files = {"1.png": boastful(4097, 10), "2.png": boastful(60000, 60000), "3.png": boastful(2**31 - 1, 2**31 - 1)}
    files["4.png"] = boastful(10000, 10000)  # more pixels than Pillow likes, of which it warns
    files["5.ppm"] = b"P6 60000 60000 255 "
    files["6.bmp"] = b"BM" + struct.pack("<IIIIiiHHIIIIII", 0, 0, 54, 40, 60000, 60000, 1, 24, 0, 0, 0, 0, 0, 0)
    tracemalloc.start()
    try:
        for name, content in files.items():
            path = tmp_path / "mine.zip"
            path.write_bytes(pack_zip(FILES | {f"insects/ant/{name}": content}))
            with warnings.catch_warnings(), pytest.raises(UsageError, match=rf"insects/ant/{name} that cannot be read"):
                warnings.simplefilter("error")
                read_tree("mine", path)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_more_pictures_than_may_be_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(picture_trees, "LARGEST", 30 * 3072 - 1)
    with pytest.raises(UsageError, match="has 30 pictures, which make 92160 bytes; at most 92159 are read"):
        read_tree("mine", unpack(tmp_path, FILES))


# Official trees


def test_notmnist_is_padded_and_its_two_empty_files_are_left_out(tmp_path, caplog):
    images, labels = write_notmnist(tmp_path / "notmnist")
    with caplog.at_level(logging.INFO):
        (found,) = image_sources.load(["notmnist"], tmp_path)
    assert "2 pictures that are known to be unreadable are left out" in caplog.text
    images, labels = in_order(images, labels)
    assert np.array_equal(found.images[:, 2:-2, 2:-2, 0], images) and not found.images[:, :2].any()
    assert found.labels.tolist() == labels.tolist() and found.class_names == tuple("ABCDEFGHIJ")
    # Another one is not passed over.
    path = tmp_path / "notmnist" / "notMNIST_small.tar.gz"
    files = class_folders(images, np.array(list("ABCDEFGHIJ"))[labels]) | dict.fromkeys(
        (*EMPTY_LETTERS, "A/x.png"), b""
    )
    path.write_bytes(tar(files))
    with pytest.raises(UsageError, match=r"picture A/x\.png that cannot be read"):
        image_sources.load(["notmnist"], tmp_path)


@pytest.mark.parametrize("fixed", [False, True])
def test_traffic_signs_are_resized_whole_and_labelled_by_folder_and_table(tmp_path, fixed):
    made = write_gtsrb(tmp_path / "gtsrb", fixed=fixed)
    (found,) = image_sources.load(["gtsrb"], tmp_path)
    train, labels = in_order(*made["train"])
    images = np.concatenate([train, made["test"][0]])
    assert found.labels.tolist() == [*labels, *made["test"][1]] and found.split.sum() == len(train)
    for image, small in zip(images, found.images, strict=True):
        assert np.array_equal(small, decode(picture(image)))
    assert found.class_names == tuple(map(str, range(43)))


def test_traffic_signs_without_labels_are_refused(tmp_path):
    folder = tmp_path / "gtsrb"
    write_gtsrb(folder)
    truth = folder / "GTSRB_Final_Test_GT.zip"
    for table, message in (
        ("Filename;ClassId\n00000.ppm;1\n", r"differ on 00001\.ppm"),
        ("Filename;ClassId\n00000.ppm;43\n", r"00000\.ppm of class '43', expected 0 to 42"),
        ("Filename;ClassId\n00000.ppm;-1\n", "of class '-1'"),
        ("Filename;ClassId\n00000.ppm\n", "of class ''"),
        ("Filename;ClassId\n00000.ppm;1\n00000.ppm;2\n", "names a picture twice"),
        ("Name;Class\n", r"differ on 00000\.ppm"),
        ("Name;Class\na;b\n", "no table with Filename and ClassId"),
        ("\xff", r"differ|no table"),
    ):
        truth.write_bytes(pack_zip({"GT-final_test.csv": table.encode("latin-1")}))
        with pytest.raises(UsageError, match=message):
            image_sources.load(["gtsrb"], tmp_path)
    truth.unlink()
    with pytest.raises(UsageError, match=r"there is no .*GTSRB_Final_Test_GT\.zip"):
        image_sources.load(["gtsrb"], tmp_path)
    (folder / "GTSRB_Final_Training_Images.zip").unlink()
    with pytest.raises(UsageError, match=r"there is no .*GTSRB_Final_Training_Images\.zip"):
        image_sources.load(["gtsrb"], tmp_path)


# The real pictures


def test_the_real_trees_read_as_pillow_reads_them(data_folder):
    import zipfile

    for task, file, name in (
        ("orl_faces", "orl-faces/att_faces_s3-s40.zip", "att_faces/s10/1.pgm"),
        ("sign_digits", "sign-digits/sign_digits_subset.zip", "Dataset/0/IMG_1118.JPG"),
    ):
        (found,) = image_sources.load([task], data_folder)
        with zipfile.ZipFile(data_folder / file) as archive:
            first = Image.open(io.BytesIO(archive.read(name))).resize((32, 32), Image.Resampling.BILINEAR)
        assert np.array_equal(found.images[0].squeeze(), np.asarray(first))
        (again,) = image_sources.load([str(data_folder / file)])
        assert np.array_equal(again.images, found.images) and np.array_equal(again.labels, found.labels)
