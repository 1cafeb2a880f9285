"""The vision data sets that `leap fetch` knows: which files each consists of, where they are, and under which terms.

Sizes and checksums are those of the files that the authors distribute. Each stands in at least two public places that
do not copy each other: torchvision's source, TensorFlow Datasets' list of checksums, the sizes and md5 sums that
datasets-mila keeps, or for notMNIST four loaders. Where there is none, the comment beside the row says so.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from leap.errors import UsageError


@dataclass(frozen=True)
class File:
    """A file of a data set as its authors distribute it."""

    name: str
    urls: tuple[str, ...]
    """Addresses of the same bytes, tried in order."""
    md5: str | None
    """The published checksum; it guards against damage, not against malice. None: nobody publishes one."""
    size: int | None
    """Bytes; None where it is not published."""


@dataclass(frozen=True)
class Dataset:
    """A data set; `name` is the folder it is kept in."""

    name: str
    title: str
    files: tuple[File, ...]
    """None at all: a person has to get it."""
    licence: str
    home: str
    others: tuple[str, ...] = ("*.npz", "*/")
    """Patterns of what holds the set, or a part of it, in someone else's form; one that ends in `/` is of folders."""
    by_hand: str = ""
    """Why nothing can be downloaded, where there are no files."""
    put: str = ""
    """What a person puts into the folder, where there are no files."""


def _files(addresses: tuple[str, ...], *rows: tuple[str, int | None, str | None]) -> tuple[File, ...]:
    """Files (name, size, md5) that lie side by side at every address."""
    return tuple(File(name, tuple(at + name for at in addresses), md5, size) for name, size, md5 in rows)


def _by_hand(name: str, title: str, home: str, licence: str, why: str, what: str) -> Dataset:
    put = f"{what} in folders, as they are or in a .zip or .tar.gz (or a .npz of images, labels, split and class_names)"
    return Dataset(name, title, (), licence, home, ("*.npz", "*.zip", "*.tar", "*.tar.gz", "*.tgz", "*/"), why, put)


_NONE = "none stated"
_CIFAR = "https://www.cs.toronto.edu/~kriz/"

_ROWS = (
    Dataset(
        "omniglot",
        "Omniglot: 1,623 characters of 50 alphabets",
        _files(
            ("https://raw.githubusercontent.com/brendenlake/omniglot/master/python/",),
            ("images_background.zip", 9_464_212, "68d2efa1b9178cc56df9314c21c6e718"),
            ("images_evaluation.zip", 6_462_886, "6b91aef0f799c5bb55b94e3f2daec811"),
        ),
        "MIT (c) 2015 Brenden Lake",
        "https://github.com/brendenlake/omniglot",
    ),
    Dataset(
        "mnist",
        "MNIST: 70,000 handwritten digits",
        # The authors' own server refuses many requests, so it comes last.
        _files(
            (
                "https://ossci-datasets.s3.amazonaws.com/mnist/",
                "https://storage.googleapis.com/cvdf-datasets/mnist/",
                "http://yann.lecun.com/exdb/mnist/",
            ),
            ("train-images-idx3-ubyte.gz", 9_912_422, "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
            ("train-labels-idx1-ubyte.gz", 28_881, "d53e105ee54ea40749a09fcbcd1e9432"),
            ("t10k-images-idx3-ubyte.gz", 1_648_877, "9fb629c4189551a2d022fa330f9573f3"),
            ("t10k-labels-idx1-ubyte.gz", 4_542, "ec29112dd5afa0611ce80d1b7f02629c"),
        ),
        "CC BY-SA 3.0, as Keras documents it",
        "http://yann.lecun.com/exdb/mnist/",
    ),
    Dataset(
        "fashion-mnist",
        "Fashion-MNIST: 70,000 pieces of clothing",
        _files(
            (
                "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
                "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            ),
            ("train-images-idx3-ubyte.gz", 26_421_880, "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
            ("train-labels-idx1-ubyte.gz", 29_515, "25c81989df183df01b3e8a0aad5dffbe"),
            ("t10k-images-idx3-ubyte.gz", 4_422_102, "bef4ecab320f06d8554ea6380940ec79"),
            ("t10k-labels-idx1-ubyte.gz", 5_148, "bb300cfdad3c16e7a12a480ee83cd310"),
        ),
        "MIT (c) 2017 Zalando SE",
        "https://github.com/zalandoresearch/fashion-mnist",
    ),
    Dataset(
        "kmnist",
        "Kuzushiji-MNIST: 70,000 handwritten hiragana",
        _files(
            ("https://codh.rois.ac.jp/kmnist/dataset/kmnist/", "http://codh.rois.ac.jp/kmnist/dataset/kmnist/"),
            ("train-images-idx3-ubyte.gz", 18_165_135, "bdb82020997e1d708af4cf47b453dcf7"),
            ("train-labels-idx1-ubyte.gz", 29_497, "e144d726b3acfaa3e44228e80efcd344"),
            ("t10k-images-idx3-ubyte.gz", 3_041_136, "5c965bf0a639b31b8f53240b1b52f4d7"),
            ("t10k-labels-idx1-ubyte.gz", 5_120, "7320c461ea6c1c855c0b718fb2a4b134"),
        ),
        "CC BY-SA 4.0, KMNIST Dataset created by CODH",
        "https://github.com/rois-codh/kmnist",
    ),
    Dataset(
        "notmnist",
        "notMNIST: 18,724 letters A to J of many fonts (the hand-cleaned part)",
        _files(
            ("https://commondatastorage.googleapis.com/books1000/", "http://yaroslavvb.com/upload/notMNIST/"),
            ("notMNIST_small.tar.gz", 8_458_043, "c9890a473a9769fda4bdf314aaf500dd"),
        ),
        _NONE,
        "http://yaroslavvb.blogspot.com/2011/09/notmnist-dataset.html",
        others=("*.npz", "*-ubyte.gz", "*/"),
    ),
    Dataset(
        "cifar10",
        "CIFAR-10: 60,000 small photographs of 10 kinds of things",
        _files((_CIFAR,), ("cifar-10-python.tar.gz", 170_498_071, "c58f30108f718f92721af3b95e74349a")),
        f"{_NONE}; cite Krizhevsky 2009",
        "https://www.cs.toronto.edu/~kriz/cifar.html",
    ),
    Dataset(
        "cifar100",
        "CIFAR-100: 60,000 small photographs of 100 kinds of things",
        _files((_CIFAR,), ("cifar-100-python.tar.gz", 169_001_437, "eb9058c3a382ffc7106e4002c42a8d85")),
        f"{_NONE}; cite Krizhevsky 2009",
        "https://www.cs.toronto.edu/~kriz/cifar.html",
    ),
    Dataset(
        "svhn",
        "SVHN: 99,289 digits of house numbers (without the extra part)",
        _files(
            ("http://ufldl.stanford.edu/housenumbers/",),
            ("train_32x32.mat", 182_040_794, "e26dedcc434d2e4c54c9b2d4a06d8373"),
            ("test_32x32.mat", 64_275_384, "eb5a983be6a315427106f1b164d9cef3"),
        ),
        "for non-commercial use only",
        "http://ufldl.stanford.edu/housenumbers/",
    ),
    Dataset(
        "gtsrb",
        "GTSRB: German traffic signs of 43 kinds",
        _files(
            ("https://sid.erda.dk/public/archives/daaeac0d7ce1152aea9b61d9f1e19370/",),
            ("GTSRB-Training_fixed.zip", 187_490_228, "513f3c79a4c5141765e10e952eaa2478"),
            ("GTSRB_Final_Test_Images.zip", 88_978_620, "c7e4e6327067d32654124b0fe9e82185"),
            ("GTSRB_Final_Test_GT.zip", 99_620, "fe31e9c9270bbcd7b84b7f21a9d9d9e5"),
        ),
        f"{_NONE}; cite Stallkamp et al. 2012",
        "https://benchmark.ini.rub.de/gtsrb_news.html",
    ),
    Dataset(
        "usps",
        "USPS: 9,298 digits of postal codes",
        # No checksum or exact size is published anywhere: 1.7 and 0.4 MB are all that is said of them.
        _files(
            (
                "https://hastie.su.domains/ElemStatLearn/datasets/",
                "https://web.stanford.edu/~hastie/ElemStatLearn/datasets/",
            ),
            ("zip.train.gz", None, None),
            ("zip.test.gz", None, None),
        ),
        f"{_NONE}; cite Hull 1994",
        "https://hastie.su.domains/ElemStatLearn/data.html",
    ),
    _by_hand(
        "orl-faces",
        "ORL (AT&T) faces: 10 photographs each of 40 people",
        "https://cam-orl.co.uk/facedatabase.html",
        "give credit to Olivetti Research Laboratory; photographs of real people, for research",
        "no stable address with a known checksum",
        "s1 to s40, the photographs of one person each,",
    ),
    _by_hand(
        "sign-digits",
        "Sign Language Digits: photographs of hands",
        "https://github.com/ardamavi/Sign-Language-Digits-Dataset",
        "Apache 2.0; cite Mavi, arXiv:2011.08927",
        "it is the folder Dataset/ of a repository, not a file with a checksum",
        "0 to 9, the images of one digit each,",
    ),
    _by_hand(
        "facescrub",
        "FaceScrub: faces of public figures",
        "http://vintage.winklerbros.net/facescrub.html",
        "none for the photographs, which belong to many owners; cite Ng and Winkler 2014",
        "its authors give lists of addresses of photographs, many of them dead, not the photographs",
        "the faces that you could get, of one person each,",
    ),
)

DATASETS: dict[str, Dataset] = {row.name: row for row in _ROWS}
"""Data sets by name; another one joins with a row."""


def dataset(name: str) -> Dataset:
    """A data set by name.

    Raises:
        UsageError: there is none of that name; the message says the nearest.

    Example:
        >>> dataset("omniglot").licence
        'MIT (c) 2015 Brenden Lake'
    """
    if name in DATASETS:
        return DATASETS[name]
    close = difflib.get_close_matches(name.lower(), DATASETS, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise UsageError(f"no data set {name!r}; {hint}Known: {', '.join(DATASETS)}")
