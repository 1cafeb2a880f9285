"""CIFAR's python archives, and pickles that are read without being run."""

import itertools
import os
import pickle
import pickletools
import struct
import tracemalloc

import numpy as np
import pytest
from official_files import CIFAR10_NAMES, cifar10_files, python2, tar, unpack, write_cifar10, write_cifar100

from leap.errors import UsageError
from tasks import cifar100, image_sources, plain_pickles
from tasks.cifar_archives import read_cifar

ARRAY = np.arange(12, dtype=np.uint8).reshape(3, 4)
ONE = np.zeros((1, 3072), np.uint8)
NAMES100 = sorted(itertools.chain(*cifar100.SUPERCLASSES.values()))
# How a pickle of numpy goes on once the array is on the stack.
ARRAY_OPENING = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01"
BYTES_TYPE = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R"


def same(found, expected):
    """Whether two values are the same, arrays and Python 2's texts as well."""
    if isinstance(expected, dict):
        keys = {key.decode() if isinstance(key, bytes) else key for key in expected}
        return found.keys() == keys and all(
            same(found[key.decode() if isinstance(key, bytes) else key], value) for key, value in expected.items()
        )
    if isinstance(expected, np.ndarray):
        return isinstance(found, np.ndarray) and found.dtype == np.uint8 and np.array_equal(found, expected)
    return type(found) is type(expected) and found == expected


# Pickles


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_data_comes_out_as_pickle_would_load_it(protocol):
    plain = {
        "data": ARRAY, "turned": np.asfortranarray(ARRAY), "large": np.zeros(70_000, np.uint8), "empty": [],
        b"labels": [0, 255, 256, -7, 2**40], "pair": (1, "ä"), "four": (1, 2, 3, 4), "nothing": None, "yes": True,
        "no": False, "nested": {"a": [()]},
    }  # fmt: skip
    if protocol == 5:  # newer numpy writes protocol 5 in a way of its own
        del plain["data"], plain["turned"], plain["large"]
    assert same(plain_pickles.load(pickle.dumps(plain, protocol=protocol)), plain)


def test_pickles_of_python_2_come_out_as_pickle_would_load_them():
    for content in (*cifar10_files()[0].values(), python2({"a": ARRAY, "b": [1, 2], "c": "text", "d": 7})):
        assert same(plain_pickles.load(content), pickle.loads(content, encoding="bytes"))  # written by ourselves


class Evil:
    """Runs a command where it is unpickled."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def evil(module, name, arguments=b"U\x04true\x85"):
    return b"\x80\x02}U\x04datac" + module + b"\n" + name + b"\n" + arguments + b"Rs."


HOSTILE = {
    "os.system": (evil(b"os", b"system"), "would run os system"),
    "posix.system": (evil(b"posix", b"system"), "would run posix system"),
    "eval": (evil(b"builtins", b"eval", b"U\x0a__import__\x85"), "would run builtins eval"),
    "eval of Python 2": (evil(b"__builtin__", b"eval"), "would run __builtin__ eval"),
    "exec": (evil(b"builtins", b"exec"), "would run builtins exec"),
    "subprocess": (evil(b"subprocess", b"Popen"), "would run subprocess Popen"),
    "getattr": (evil(b"builtins", b"getattr"), "would run builtins getattr"),
    "numpy.load": (evil(b"numpy", b"load"), "would run numpy load"),
    "numpy's runstring": (evil(b"numpy.testing._private.utils", b"runstring"), "would run numpy.testing"),
    "another codec": (evil(b"_codecs", b"decode"), "would run _codecs decode"),
    "a codec that is called otherwise": (evil(b"_codecs", b"encode", b"U\x01xU\x01y\x86"), "would call _codecs encode"),
    "torch's storage": (evil(b"torch._utils", b"_rebuild_tensor"), "would run torch"),
    "a name inside a name": (
        b"\x80\x04}\x8c\x04data\x8c\x05numpy\x8c\x0edtype.__init__\x93s.",
        "would run numpy dtype.__init__",
    ),
    "protocol 4": (pickle.dumps({"data": Evil(print, "x")}, protocol=4), "would run builtins print"),
    "protocol 0": (pickle.dumps({"data": Evil(print, "x")}, protocol=0), "instruction b'd'|would run"),
    "an array of objects": (pickle.dumps({"data": np.array([None, print], object)}, protocol=2), "array of 'O8'"),
    "an array of numbers": (pickle.dumps({"data": np.zeros(3)}, protocol=2), "array of 'f8'"),
    "numpy's own objects": (pickle.dumps({"data": np.float64(1)}, protocol=2), "would run numpy"),
    "a class": (b"\x80\x02(ios\nsystem\n.", "instruction b'i'"),
    "an object": (b"\x80\x02(cos\nsystem\no.", "would run os system"),
    "a new object": (b"\x80\x02cnumpy\nndarray\n)\x81.", r"instruction b'\\x81'"),
    "an extension": (b"\x80\x02\x82\x01.", r"instruction b'\\x82'"),
    "a persistent name": (b"\x80\x02Pabc\n.", "instruction b'P'"),
    "an outside buffer": (b"\x80\x05\x97.", r"instruction b'\\x97'"),
    "a call of a number": (b"\x80\x02}U\x01aK\x07)Rs.", "would call what is no function"),
    "a state for a dict": (b"\x80\x02}U\x01a}}bs.", "state of what is no array"),
    "a state for the array's type": (b"\x80\x02}U\x01acnumpy\ndtype\n}bs.", "state of what is no array"),
    "a type for an array": (b"\x80\x02}U\x01acnumpy\ndtype\nU\x02u1\x85Rs.", "neither data nor an array"),
    "an array without content": (b"\x80\x02}U\x01a" + ARRAY_OPENING[:-3] + b"s.", "neither data nor an array"),
    "an array of other length": (
        b"\x80\x02}U\x01a" + ARRAY_OPENING + b"K\x09\x85" + BYTES_TYPE + b"\x89U\x03abctbs.",
        "cannot reshape",
    ),
    "a length below zero": (
        b"\x80\x02}U\x01a" + ARRAY_OPENING + b"J\xff\xff\xff\xff\x85" + BYTES_TYPE + b"\x89U\x03abctbs.",
        "without a shape",
    ),
    "a length beyond all": (
        b"\x80\x02}U\x01a" + ARRAY_OPENING + b"\x8a\x20" + b"\x7f" * 32 + b"\x85" + BYTES_TYPE + b"\x89U\x03abctbs.",
        "Maximum allowed dimension|no pickle of plain data",
    ),
    "a boast of bytes": (b"\x80\x03}U\x01aB\xff\xff\xff\xff.", "claims 4294967295 bytes"),
    "a larger boast": (b"\x80\x04}U\x01a\x8e" + b"\xff" * 7 + b"\x7f.", "claims 9223372036854775807 bytes"),
    "a text below zero": (b"\x80\x02}U\x01aT\xff\xff\xff\xff.", "claims -1 bytes"),
    "a far place in the memo": (b"\x80\x02}r\xff\xff\xff\xff0.", "instruction b'0'"),
    "a place nobody filled": (b"\x80\x02j\xff\xff\xff\xff.", "no pickle of plain data"),
    "a key that is a tuple": (b"\x80\x02})" + b"\x85" * 100_000 + b"K\x01s.", "no pickle of plain data"),
    "a key that is a number": (b"\x80\x02}K\x01K\x01s.", "no pickle of plain data"),
    "items for a list": (b"\x80\x02](U\x01aK\x01u.", "no pickle of plain data"),
    "an odd item": (b"\x80\x02}(U\x01au.", "no pickle of plain data"),
    "a list where a dict should be": (b"\x80\x02].", "describes no dict but list"),
    "a name where a dict should be": (b"\x80\x02cnumpy\ndtype\n.", "describes no dict but Name"),
    "an empty stack": (b"\x80\x02.", "no pickle of plain data"),
    "no end": (b"\x80\x02}", "no pickle of plain data .at byte 3"),
    "nothing": (b"", "no pickle of plain data .at byte 0"),
    "a text": (b"<html>not found</html>", "instruction b'<'"),
    "a protocol to come": (b"\x80\x63}.", "protocol is 99"),
    "text that is none": (b"\x80\x04}\x8c\x02\xff\xfeK\x01s.", "utf-8"),
    "more steps than there may be": (b"\x80\x02" + b"}" * 500_100 + b".", "more than 500000 instructions"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_pickle_that_is_more_than_data_is_refused(name):
    content, message = HOSTILE[name]
    with pytest.raises(ValueError, match=message):
        plain_pickles.load(content)


@pytest.mark.parametrize("protocol", range(6))
def test_nothing_of_a_hostile_pickle_is_run(tmp_path, monkeypatch, protocol):
    monkeypatch.chdir(tmp_path)
    for function in (os.mkdir, os.system, eval, exec, __import__, np.save):
        content = pickle.dumps({"data": Evil(function, "made")}, protocol=protocol)
        with pytest.raises(ValueError, match=r"would run|would call|instruction"):
            plain_pickles.load(content)
    assert not list(tmp_path.iterdir())
    with pytest.raises(FileExistsError):  # the same pickle does run where it is unpickled
        pickle.loads(pickle.dumps(Evil(os.mkdir, str(tmp_path)), protocol=protocol))


def test_depth_repetition_and_boasts_cost_little_memory_and_time():
    deep = b"\x80\x02}U\x01a" + b"]" * 40_000 + b"a" * 39_999 + b"s."
    tuples = b"\x80\x02}U\x01a)" + b"\x85" * 90_000 + b"s."
    around = b"\x80\x02}U\x01a]q\x00" + b"h\x00a" * 30_000 + b"s."  # a list that holds itself
    puts = b"\x80\x02}" + b"".join(b"r" + struct.pack("<I", 2**32 - 1 - i) for i in range(20_000)) + b"."
    doubled = b"\x80\x02}q\x00U\x01a]q\x01" + b"h\x01h\x01a" * 1000 + b"s."
    tracemalloc.start()
    try:
        for content in (deep, tuples, around, puts, doubled):
            try:
                assert isinstance(plain_pickles.load(content), dict)
            except ValueError as error:
                assert "no pickle of plain data" in str(error)
        for name in ("a boast of bytes", "a larger boast", "a far place in the memo"):
            with pytest.raises(ValueError):
                plain_pickles.load(HOSTILE[name][0])
        assert tracemalloc.get_traced_memory()[1] < 30_000_000
    finally:
        tracemalloc.stop()


def test_pickles_are_read_with_every_instruction_that_python_writes_for_plain_data():
    known = {bytes([code]).decode("latin-1") for code in plain_pickles._INSTRUCTIONS}
    for protocol in (2, 3, 4):
        for value in (
            {"a": [1, 300, -1, 2**33, None, True, False, "x", (1, 2), (1,), (1, 2, 3), (1, 2, 3, 4)], "b": ARRAY},
            {},
        ):
            content = pickle.dumps(value, protocol=protocol)
            assert {op.code for op, _, _ in pickletools.genops(content)} - known <= {"."}
            assert plain_pickles.load(content).keys() == value.keys()


# Archives


@pytest.mark.parametrize("form", ["archive", "folder"])
def test_cifar10_is_read_in_the_order_of_its_batches(tmp_path, form):
    made = write_cifar10(tmp_path / "cifar10")
    if form == "folder":
        (tmp_path / "cifar10" / "cifar-10-python.tar.gz").unlink()
        unpack(tmp_path / "cifar10", cifar10_files()[0])
    (found,) = image_sources.load(["cifar10"], tmp_path)
    images, labels = (np.concatenate([made["train"][i], made["test"][i]]) for i in range(2))
    assert np.array_equal(found.images, images) and found.labels.tolist() == labels.tolist()
    assert found.split.tolist() == [True] * 20 + [False] * 4 and found.class_names == tuple(CIFAR10_NAMES)


def test_cifar100_has_its_fine_labels_and_so_its_halves(tmp_path):
    made = write_cifar100(tmp_path / "cifar100", NAMES100)
    whole, half, coarse = image_sources.load(["cifar100", "natural", "natural_coarse"], tmp_path)
    assert whole.class_names == tuple(NAMES100) and np.array_equal(whole.images[:200], made["train"][0])
    assert whole.labels[:200].tolist() == made["train"][1].tolist() and whole.split.sum() == 200
    assert len(half.class_names) == 70 and len(half.images) == 210 and len(coarse.class_names) == 14


def test_an_archive_goes_before_a_subset(tmp_path):
    write_cifar10(tmp_path / "cifar10")
    np.savez(tmp_path / "cifar10" / "subset.npz", images=np.zeros((2, 32, 32, 3), np.uint8))
    (found,) = image_sources.load(["cifar10"], tmp_path)
    assert len(found.images) == 24


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("test_batch", None, "has no test_batch; put a whole copy"),
        ("batches.meta", None, r"has no batches\.meta"),
        ("test_batch", HOSTILE["os.system"][0], "has .*/test_batch, which is refused: it would run os system"),
        ("batches.meta", HOSTILE["eval"][0], r"batches\.meta, which is refused: it would run builtins eval"),
        ("test_batch", python2({"labels": [1]}), r"its data is no array, expected uint8 \[N, 3072\]"),
        ("test_batch", python2({"labels": [1], "data": ARRAY}), r"its data is \[3, 4\]"),
        ("test_batch", python2({"data": ONE}), "its labels are no list"),
        ("test_batch", python2({"data": ONE, "labels": ["a"]}), "its labels are no list"),
        ("test_batch", python2({"data": ONE, "labels": [1, 2]}), "2 labels for 1 images"),
        ("test_batch", python2({"data": ONE, "labels": [10]}), "labels from 0 to 10 for 10 classes"),
        ("batches.meta", python2({"label_names": [1]}), "its label_names are no list of names"),
        ("batches.meta", python2({"names": ["a"]}), "its label_names are no list of names"),
    ],
)  # fmt: skip
def test_an_archive_that_is_none_is_refused_with_the_file(tmp_path, file, content, message):
    files = cifar10_files()[0]
    name = f"cifar-10-batches-py/{file}"
    files = {n: c for n, c in files.items() if n != name} | ({} if content is None else {name: content})
    path = tmp_path / "cifar-10-python.tar.gz"
    path.write_bytes(tar(files))
    with pytest.raises(UsageError, match=message) as caught:
        read_cifar("cifar10", path)
    assert str(path) in str(caught.value)


def test_no_more_than_twice_the_pictures_is_in_memory(tmp_path):
    write_cifar10(tmp_path / "cifar10", batch=1000)
    write_cifar100(tmp_path / "cifar100", NAMES100, train=5000, test=1000)
    for name in ("cifar10", "cifar100"):
        tracemalloc.start()
        try:
            (found,) = image_sources.load([name], tmp_path)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert len(found.images) == 6000 and peak < 2.3 * found.images.nbytes + 2_000_000
