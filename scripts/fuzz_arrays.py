"""Malformed files of arrays for `scripts/fuzz.py`: `.npz` and `.npy`, as `leap score` meets them."""

from __future__ import annotations

import io
import math
import random
import struct
import zipfile
from collections.abc import Mapping

import numpy as np
from fuzz_inputs import pickled, spoiled


def array(dice: random.Random, *shape: int) -> np.ndarray:
    """Numbers of this shape, in a type of any kind, some of them no numbers."""
    made = np.random.default_rng(dice.randrange(2**32)).normal(size=shape)
    if dice.random() < 0.3 and made.size:
        made.flat[dice.randrange(made.size)] = dice.choice((math.nan, math.inf, 1e308, -1e300, 1e-320))
    kinds = ("f8", "f8", "f4", "f2", ">f8", "i8", "u1", "i1", "?", "c16", "S3", "U5", "M8[s]", "f8,i4", "V6", "O")
    with np.errstate(all="ignore"):
        made *= dice.choice((1.0, 1.0, 1.0, 0.0, 1e30, 1e200, 1e-200))
        try:
            return np.asfortranarray(made.astype(dice.choice(kinds))) if dice.random() < 0.9 else made.astype("f4")
        except (TypeError, ValueError, OverflowError):
            return made


def npy(dice: random.Random, whole: np.ndarray) -> bytes:
    """An array as a file, whole or with another header."""
    out = io.BytesIO()
    np.lib.format.write_array(out, whole, allow_pickle=True)
    content, way = out.getvalue(), dice.random()
    if way < 0.6:
        return content
    if way < 0.75:
        return spoiled(content, dice)
    shape = dice.choice(
        (
            "(3,)",
            "(-1,)",
            "(10**12,)",
            "(1000000000000,)",
            "(4, 1152921504606846976)",
            "3",
            "()",
            "(" * 200,
            "(0, 5)",
            "'a'",
        )
    )
    kind = dice.choice(
        (
            "'<f8'",
            "'|O'",
            "'<f4'",
            "'|V0'",
            "'nothing'",
            "[('a', '<f8')]",
            "__import__('os').mkdir('evil')",
            "1",
            "None",
        )
    )
    head = (
        f"{{'descr': {kind}, 'fortran_order': {dice.choice(('False', 'True', '3'))}, 'shape': {shape}, }}".encode()
        + b"\n"
    )
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + content[128:]


def arrays_file(dice: random.Random) -> bytes:
    """A file for `leap score`, hardly ever one that it can read."""
    count, width = dice.choice((0, 1, 2, 3, 12, 24, 24, 24)), dice.choice((0, 1, 2, 4, 4))
    labels = np.arange(count) % dice.choice((1, 2, 3)) if dice.random() < 0.7 else array(dice, count)
    good = np.random.default_rng(count).normal(size=(count, width))
    held: dict[str, np.ndarray] = {
        "features": good if dice.random() < 0.4 else array(dice, count, width),
        "labels": labels,
    }
    if dice.random() < 0.3:
        held["source_probabilities"] = np.full((count, 2), 0.5) if dice.random() < 0.5 else array(dice, count, 3)
    way = dice.randrange(8)
    name = dice.choice(sorted(held))
    if way == 0:
        held[dice.choice(("../features", "Features", "feature", "x", "file", "é", ""))] = held.pop(name)
    elif way == 1:
        held[name] = array(dice, *dice.choice(((), (5,), (count, 2, 2), (count + 1, width), (count, 1))))
    elif way == 2 and dice.random() < 0.2:  # a bomb: 100 MB of zeros in 100 kB
        held[name] = np.zeros((25, 500_000))
    return _zipped(held, dice)


def _zipped(held: Mapping[str, np.ndarray], dice: random.Random) -> bytes:
    out = io.BytesIO()
    packing = dice.choice(
        (zipfile.ZIP_DEFLATED, zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2)
    )
    with zipfile.ZipFile(out, "w", packing) as archive:
        for name, one in held.items():
            entry = zipfile.ZipInfo(f"{name or 'x'}{dice.choice(('.npy', '.npy', '.npy', ''))}")  # without the time
            archive.writestr(entry, npy(dice, one), packing)
    way = dice.random()
    whole = out.getvalue()
    if way < 0.1:
        return npy(dice, held[min(held)])
    if way < 0.2:
        return dice.choice(
            (
                pickled(dice, {}),
                b"",
                b"PK\x05\x06" + bytes(18),
                b"\x93NUMPY",
                b"\x93NUMPY\x09\x09\x00\x00",
                b"PK\x03\x04",
            )
        )
    return spoiled(whole, dice) if way < 0.4 else whole
