"""Small files in the forms in which data sets are distributed, for tests of what reads, fetches and verifies them.

Every writer takes the data set's folder, makes it, and returns what it wrote: images, and labels.
"""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import zipfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.io import savemat

packed = partial(gzip.compress, mtime=0)  # the time of packing would name tests apart in every process

Written = tuple[np.ndarray, np.ndarray]
"""Images uint8 [N, H, W] or [N, H, W, 3], labels int64 [N]."""


def draw(count: int, *shape: int, classes: int = 10, seed: int = 0) -> Written:
    """Random images, and labels that go round the classes."""
    images = np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)
    return images, np.arange(count) % classes


# MNIST's form


def idx(array: np.ndarray, *, magic: bytes | None = None, shape: tuple[int, ...] | None = None) -> bytes:
    """The bytes of an idx file."""
    shape = array.shape if shape is None else shape
    magic = bytes([0, 0, 8, len(shape)]) if magic is None else magic
    return magic + struct.pack(f">{len(shape)}I", *shape) + array.tobytes()


def write_idx(path: Path, array: np.ndarray, **changes: Any) -> Path:
    path.write_bytes(packed(idx(array, **changes), 1))
    return path


def write_mnist(folder: Path, train: int = 0, test: int = 20, seed: int = 0, side: int = 28) -> dict[str, Written]:
    """The four idx files, or those of the parts that have images, by `train` and `t10k`."""
    folder.mkdir(parents=True, exist_ok=True)
    made = {}
    for number, (part, count) in enumerate({"train": train, "t10k": test}.items()):
        if count:
            made[part] = images, labels = draw(count, side, side, seed=seed + number)
            write_idx(folder / f"{part}-images-idx3-ubyte.gz", images)
            write_idx(folder / f"{part}-labels-idx1-ubyte.gz", labels.astype(np.uint8))
    return made


def write_kmnist(folder: Path, train: int = 30, test: int = 20) -> dict[str, Written]:
    """The four `.npz` files of Kuzushiji-MNIST, by `train` and `test`."""
    folder.mkdir(parents=True, exist_ok=True)
    made = {"train": draw(train, 28, 28), "test": draw(test, 28, 28, seed=1)}
    for part, (images, labels) in made.items():
        np.savez_compressed(folder / f"kmnist-{part}-imgs.npz", images)
        np.savez_compressed(folder / f"kmnist-{part}-labels.npz", labels.astype(np.uint8))
    return made


# CIFAR's form


def python2(found: Mapping[str, Any]) -> bytes:
    """A dict as Python 2 pickled it, protocol 2: texts, whole numbers, lists of them, and uint8 arrays."""
    items = b"".join(_python2(value) for item in found.items() for value in item)
    return b"\x80\x02}(" + items + b"u."


def _python2(value: Any) -> bytes:
    if isinstance(value, str):
        return b"U" + bytes([len(value)]) + value.encode()
    if isinstance(value, int):
        return b"K" + bytes([value]) if value < 256 else b"J" + struct.pack("<i", value)
    if isinstance(value, np.ndarray):
        shape = b"".join(b"J" + struct.pack("<i", length) for length in value.shape)
        return (
            b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01"
            + (b"(" + shape + b"t")
            + b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
            + (b"\x89T" + struct.pack("<i", value.size) + value.tobytes() + b"tb")
        )
    return b"](" + b"".join(map(_python2, value)) + b"e"


def tar(files: Mapping[str, bytes]) -> bytes:
    """A `.tar.gz` of these files."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return packed(made.getvalue(), 1)


def planes(images: np.ndarray) -> np.ndarray:
    """Pictures [N, 32, 32, 3] as CIFAR's rows [N, 3072], channel by channel."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2)).reshape(len(images), -1)


CIFAR10_NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def cifar10_files(batch: int = 4) -> tuple[dict[str, bytes], dict[str, Written]]:
    """The files of the archive, in its order, and what is in them, by `train` and `test`."""
    made = {"train": draw(5 * batch, 32, 32, 3), "test": draw(batch, 32, 32, 3, seed=1)}
    parts = {
        f"data_batch_{i + 1}": tuple(array[i * batch : (i + 1) * batch] for array in made["train"]) for i in range(5)
    }
    parts["test_batch"] = made["test"]
    contents = {
        name: python2({"batch_label": name, "labels": labels.tolist(), "data": planes(images), "filenames": ["a.png"]})
        for name, (images, labels) in parts.items()
    }
    contents["batches.meta"] = python2({"num_cases_per_batch": batch, "label_names": CIFAR10_NAMES, "num_vis": 12})
    order = (
        "data_batch_4",
        "test_batch",
        "data_batch_3",
        "batches.meta",
        "data_batch_2",
        "data_batch_5",
        "data_batch_1",
    )
    return {f"cifar-10-batches-py/{name}": contents[name] for name in order}, made


def write_cifar10(folder: Path, batch: int = 4) -> dict[str, Written]:
    """`cifar-10-python.tar.gz`."""
    folder.mkdir(parents=True, exist_ok=True)
    files, made = cifar10_files(batch)
    (folder / "cifar-10-python.tar.gz").write_bytes(tar({**files, "cifar-10-batches-py/readme.html": b"<html>"}))
    return made


def write_cifar100(folder: Path, names: list[str], train: int = 200, test: int = 100) -> dict[str, Written]:
    """`cifar-100-python.tar.gz`, for a hundred names of classes."""
    folder.mkdir(parents=True, exist_ok=True)
    made = {"train": draw(train, 32, 32, 3, classes=100), "test": draw(test, 32, 32, 3, classes=100, seed=1)}
    files = {
        f"cifar-100-python/{part}": python2(
            {"fine_labels": labels.tolist(), "coarse_labels": (labels // 5).tolist(), "data": planes(images)}
        )
        for part, (images, labels) in made.items()
    }
    files["cifar-100-python/meta"] = python2({"fine_label_names": names, "coarse_label_names": ["x"] * 20})
    (folder / "cifar-100-python.tar.gz").write_bytes(tar(files))
    return made


# SVHN's form


def write_svhn(folder: Path, train: int = 12, test: int = 11, packed: bool = True) -> dict[str, Written]:
    """`train_32x32.mat` and `test_32x32.mat`, where the digit 0 is labelled 10."""
    folder.mkdir(parents=True, exist_ok=True)
    made = {"train": draw(train, 32, 32, 3), "test": draw(test, 32, 32, 3, seed=1)}
    for part, (images, labels) in made.items():
        digits = np.where(labels == 0, 10, labels).astype(np.uint8)[:, None]
        savemat(folder / f"{part}_32x32.mat", {"X": images.transpose(1, 2, 3, 0), "y": digits}, do_compression=packed)
    return made


# USPS's form


def usps_text(images: np.ndarray, labels: np.ndarray) -> bytes:
    """Lines of values [N, 16, 16] from -1 to 1."""
    return b"".join(
        f"{label:.4f} {' '.join(f'{value:.3f}' for value in image.ravel())} \n".encode()
        for image, label in zip(images, labels, strict=True)
    )


def write_usps(folder: Path, train: int = 20, test: int = 10) -> dict[str, Written]:
    """`zip.train.gz` and `zip.test.gz`; the images returned are the values written, in thousandths."""
    folder.mkdir(parents=True, exist_ok=True)
    made = {}
    for number, (part, count) in enumerate({"train": train, "test": test}.items()):
        values = np.random.default_rng(number).integers(-1000, 1001, (count, 16, 16))
        made[part] = (values, np.arange(count) % 10)
        (folder / f"zip.{part}.gz").write_bytes(packed(usps_text(values / 1000, made[part][1]), 1))
    return made


# Pictures in folders


def picture(image: np.ndarray, kind: str = "PNG") -> bytes:
    """A picture's file, from uint8 [H, W] or [H, W, 3]."""
    made = io.BytesIO()
    Image.fromarray(image).save(made, kind)
    return made.getvalue()


def pack_zip(files: Mapping[str, bytes]) -> bytes:
    """A zip of these files."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return made.getvalue()


def unpack(folder: Path, files: Mapping[str, bytes]) -> Path:
    """These files in a folder."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def class_folders(images: np.ndarray, labels: np.ndarray, above: str = "", kind: str = "PNG") -> dict[str, bytes]:
    """Files of pictures, each in the folder `above` + its label."""
    return {
        f"{above}{label}/{number:03}.{kind.lower()}": picture(image, kind)
        for number, (image, label) in enumerate(zip(images, labels, strict=True))
    }


EMPTY_LETTERS = ("A/RGVtb2NyYXRpY2FCb2xkT2xkc3R5bGUgQm9sZC50dGY=.png", "F/Q3Jvc3NvdmVyIEJvbGRPYmxpcXVlLnR0Zg==.png")


def write_notmnist(folder: Path, count: int = 60) -> Written:
    """`notMNIST_small.tar.gz`, with the two empty files of the true one."""
    folder.mkdir(parents=True, exist_ok=True)
    images, labels = draw(count, 28, 28)
    files = class_folders(images, np.array(list("ABCDEFGHIJ"))[labels], "notMNIST_small/")
    empty = {f"notMNIST_small/{name}": b"" for name in EMPTY_LETTERS}
    (folder / "notMNIST_small.tar.gz").write_bytes(tar({**files, **empty}))
    return images, labels


def write_gtsrb(folder: Path, train: int = 86, test: int = 43, fixed: bool = False) -> dict[str, Written]:
    """The three zips of traffic signs, the training ones as of the benchmark or (`fixed`) of the first competition."""
    folder.mkdir(parents=True, exist_ok=True)
    made = {"train": draw(train, 40, 50, 3, classes=43), "test": draw(test, 40, 50, 3, classes=43, seed=1)}
    table = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId\r\n"
    above = "GTSRB/Training/" if fixed else "GTSRB/Final_Training/Images/"
    images, labels = made["train"]
    files = class_folders(images, np.array([f"{label:05}" for label in labels]), above, "PPM")
    tables = {f"{above}{label:05}/GT-{label:05}.csv": table.encode() for label in range(43)}
    name = "GTSRB-Training_fixed.zip" if fixed else "GTSRB_Final_Training_Images.zip"
    (folder / name).write_bytes(pack_zip({**files, **tables, "GTSRB/Readme.txt": b""}))
    images, labels = made["test"]
    asked = {f"GTSRB/Final_Test/Images/{i:05}.ppm": picture(image, "PPM") for i, image in enumerate(images)}
    asked["GTSRB/Final_Test/Images/GT-final_test.test.csv"] = b"Filename;Width\r\n"
    (folder / "GTSRB_Final_Test_Images.zip").write_bytes(pack_zip(asked))
    rows = "".join(f"{i:05}.ppm;50;40;5;5;45;35;{label}\r\n" for i, label in enumerate(labels))
    (folder / "GTSRB_Final_Test_GT.zip").write_bytes(pack_zip({"GT-final_test.csv": (table + rows).encode()}))
    return made
