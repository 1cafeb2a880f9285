"""Malformed values, texts, documents, files of tensors and of arrays for `scripts/fuzz.py`, all from one die."""

from __future__ import annotations

import io
import json
import math
import pickle
import random
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from leap.run import pack

MARKER = "<script>alert(7)</script>"
"""Text that no page may hold as it is."""
EVIL = "evil"
"""A file that whatever is executed would leave behind."""
TEXTS = (
    *(
        "",
        " ",
        "-",
        "--",
        "~",
        "null",
        "true",
        "1e5",
        "0x10",
        "NaN",
        "a\nb",
        "a\tb",
        "é𝄞",
        "\x00",
        "\x1b[2Jx",
        "\ud800",
    ),
    *(
        MARKER,
        f'"><img src=x onerror={MARKER}>',
        "../../out",
        "/etc/passwd",
        "..",
        "a/b",
        "%s%n",
        "{0}",
        "$x$",
        "\u202e",
    ),
    *("x" * 300, "x" * 5000, "leap", "none", "__proto__", "test", "auto", "sgd", "nan", "1" * 400),
)
NUMBERS = (
    *(-1, 0, 1, 2, 3, 7, 2**31, 2**63, 2**64, -(2**70), 10**19, 10**320, 0.5, -0.5, 1e-320, 1e30, 1e308, -1e308),
    *(math.nan, math.inf, -math.inf),
)
ODD = (None, True, False, [], {}, [[]], [{}], {"": 1}, {"a": {"b": None}}, [1, "a", None], [[1, 2], [3]])


def odd(dice: random.Random) -> Any:
    """A value where another one should be."""
    return dice.choice(dice.choice((TEXTS, NUMBERS, ODD)))


def spoiled(content: bytes, dice: random.Random) -> bytes:
    """The content cut short, or with bytes turned over, taken out, put in or doubled."""
    at, length = dice.randrange(max(len(content), 1)), dice.choice((1, 1, 2, 8, 60))
    before, inside, after = content[:at], content[at : at + length], content[at + length :]
    noise = dice.choice((b"\xff", b"\x00", b"9", b"-", b"\n", b"[", b'"', b"\xc3")) * length
    flipped = bytes([inside[0] ^ (1 << dice.randrange(8))]) if inside else b""
    return dice.choice((
        before, before + after, before + inside + inside + after, before + noise + after,
        before + noise + inside + after,
        before + flipped + inside[1:] + after, before + dice.randbytes(length) + after, b"",
    ))  # fmt: skip


def places(document: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where something stands in a document: keys and indices from its root."""
    found = [at]
    held = document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    for key, value in held:
        found += places(value, (*at, key))
    return found


def changed(document: Any, dice: random.Random) -> Any:
    """A document of JSON with one to three things wrong; the document given stays as it is."""
    held = json.loads(json.dumps(document))
    for _ in range(dice.choice((1, 1, 1, 2, 3))):
        at = dice.choice(places(held))
        if not at:
            held = odd(dice) if dice.random() < 0.1 else held
            continue
        above = held
        for key in at[:-1]:
            above = above[key]
        _change(above, at[-1], dice)
    return held


def _change(above: Any, key: Any, dice: random.Random) -> None:
    value, way = above[key], dice.randrange(6)
    if way == 0:
        del above[key]
    elif way == 1:
        above[key] = [value]
    elif way == 2 and isinstance(value, list) and value:
        above[key] = value[: dice.randrange(len(value))] if dice.random() < 0.5 else [*value, value[-1]]
    elif way == 2 and isinstance(value, int):
        above[key] = value * dice.choice((-1, 2, 1000, 10**40))
    elif way == 2 and isinstance(value, float):
        above[key] = value * dice.choice((-1, 2, 1e3, 0.5, 1e40)) if math.isfinite(value) else 0
    elif way == 3 and isinstance(above, dict):
        above[str(dice.choice(TEXTS))] = above.pop(key)
    elif way == 4 and isinstance(value, str):
        above[key] = dice.choice((value + MARKER, value[:-1], value * 50, dice.choice(TEXTS)))
    else:
        above[key] = odd(dice)


def as_json(document: Any) -> bytes:
    """A document as Python writes it, NaN and halves of characters included."""
    return json.dumps(document).encode()


def json_file(content: bytes, dice: random.Random) -> bytes:
    """A damaged file of JSON."""
    if dice.random() < 0.7:
        return as_json(changed(json.loads(content), dice))
    whole = (
        b"[" * 100_000, b'{"a":' * 50_000, b"9" * 5000, b"[" + b"9" * 5000 + b"]", b"null", b"[]", b"{}",
        b"3", b'"x"', b"\xef\xbb\xbf{}",
        b"\xff\xfe{\x00}\x00", b"{} {}", b'{"format": 1e999}', b'{"a": 1, "a": 2}', b"\x00" * 64, b"PK\x03\x04", b"nan",
    )  # fmt: skip
    return dice.choice(whole) if dice.random() < 0.3 else spoiled(content, dice)


def lines_file(content: bytes, dice: random.Random) -> bytes:
    """A damaged file of JSON, a line each."""
    lines = content.splitlines(keepends=True)
    if dice.random() < 0.4 or not lines:
        return spoiled(content, dice)
    at = dice.randrange(len(lines))
    line = json_file(lines[at], dice).replace(b"\n", b" ") + b"\n"
    return b"".join(dice.choice(([*lines[:at], line, *lines[at + 1 :]], [*lines, line], lines[::-1], lines[:at])))


YAML = (
    b"!!python/object/apply:os.system ['touch evil']\n", b"tasks: !!python/object/new:os.system ['touch evil']\n",
    b"seed: !!python/name:os.system\n", b"a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nseed: *c\n",
    b"seed: &s 1\ntasks: *s\n",
    b"a: &a {b: *a}\n", b"<<: {seed: 3}\n", b"seed: !!binary aGk=\n", b"seed: !!set {1, 2}\n", b"seed: 2020-01-01\n",
    b"? [a, b]\n: 3\n", b"? {a: b}\n: 3\n", b"seed: 1\n---\nseed: 2\n", b"%YAML 9.9\n---\nseed: 1\n", b"%TAG ! x\n",
    b"\tseed: 1\n",
    b"seed: 1\nseed: 2\n", b"seed: " + b"9" * 5000 + b"\n", b"inner: {lr: 1e99999}\n", b"seed: 0x1F\n",
    b"seed: 0o17\n", b"seed: 1_0\n",
    b"[" * 20_000, b"{a: " * 20_000, b"- " * 5000, b"a:\n" * 2000, b"? " * 3000, b"\x00", b"\xff\xfes\x00",
    b"\xef\xbb\xbfseed: 1\n",
    b"seed: 1\x00", b"", b"\n\n", b"# nothing\n", b"null\n", b"[]\n", b"3\n", b"seed\n",
    b"seed: \xff\n", b'seed: "\\ud800"\n',
    b"seed: |\n  1\n", b"tasks: {name: custom, source: 'evil.py:make'}\n", b"tasks: {name: [a]}\n",
    b"tasks: quadratic\n", b"tasks:\n",
    b"compare: {grid: {a: {b: {c: [1]}}}}\n", b"compare: {learners: [../../x]}\n", b"&a : b\n", b"*a\n", b"!x y\n",
    b"a: b: c\n", b"@\n",
    b"wandb: {mode: 3}\n", b"train: {inner_steps: .inf}\n", b"seed: .nan\n", b"{", b"'", b'"', b"a: 'b", b"\x85",
    b"\xe2\x80\xa8: 1\n",
)  # fmt: skip


def yaml_file(settings: Mapping[str, Any], dice: random.Random) -> bytes:
    """Settings with something wrong, or no settings at all."""
    way = dice.random()
    if way < 0.15:
        return dice.choice(YAML)
    if way < 0.16:
        return dice.choice(
            (b"a" * 10_000_000, b"seed: 1\n" * 1_200_000, b"# " + b"x" * 10_000_000, b"- [1]\n" * 300_000)
        )
    # JSON is YAML, but for what ASCII cannot say
    content = json.dumps(changed(dict(settings), dice), ensure_ascii=dice.random() < 0.5).encode(
        "utf-8", "surrogatepass"
    )
    return content if way < 0.85 else spoiled(content, dice)


DTYPES = (torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int8, torch.bool, torch.complex64)


def tensors_file(content: bytes, dice: random.Random) -> bytes:
    """A damaged file of tensors: torn, of others, or forged so that its digest fits."""
    way = dice.random()
    if way < 0.25:
        return spoiled(content, dice)
    if way < 0.4:
        size = struct.unpack("<Q", content[:8])[0]
        header = json_file(content[8 : 8 + size], dice)
        return struct.pack("<Q", dice.choice((len(header), len(header), 2**62, 1))) + header + content[8 + size :]
    tensors, about = _opened(content)
    if way < 0.5:
        kept = safetensors.torch.save(
            tensors, metadata=dice.choice((None, {"leap": as_json(changed(about, dice)).decode()}))
        )
        return dice.choice((kept, pickled(dice, tensors), b"PK\x03\x04" + content))
    if way < 0.75:
        other = changed(about, dice)
        return pack(tensors, other if isinstance(other, dict) else {"leap": other})
    return pack(_forged(tensors, dice), about)


def _opened(content: bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    size = struct.unpack("<Q", content[:8])[0]
    about = json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["leap"])
    return safetensors.torch.load(content), {key: about[key] for key in about if key not in ("format", "sha256")}


def _forged(tensors: dict[str, Tensor], dice: random.Random) -> dict[str, Tensor]:
    """The same with another type, shape, name or number somewhere."""
    held = dict(tensors) or {"theta": torch.zeros(3)}
    name = dice.choice(sorted(held))
    tensor, way = held[name], dice.randrange(7)
    if way == 0:
        held[name] = tensor.to(dice.choice(DTYPES))
    elif way == 1:
        held = {key: one.to(DTYPES[0]) for key, one in held.items()}
    elif way == 2:
        held[name] = torch.zeros(dice.choice(((), (0,), (1,), (*tensor.shape, 1), (7,), (2, 0, 3))), dtype=tensor.dtype)
    elif way == 3:
        held[dice.choice((*TEXTS[1:15], "learner/extra", "document", "meta", "theta", "../x"))] = held.pop(name)
    elif way == 4:
        held["learner/extra"] = torch.zeros(dice.choice((1, 5, 11)))
    elif way == 5 and tensor.is_floating_point():
        held[name] = torch.full_like(tensor, dice.choice((math.nan, math.inf, 1e30, 0.0)))
    else:
        del held[name]
    return held


class Evil:
    """Leaves a file behind where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (EVIL, "w"))


def pickled(dice: random.Random, tensors: Mapping[str, Tensor]) -> bytes:
    """A pickle: tensors as torch saves them, or one that leaves a file behind where it is read."""
    out = io.BytesIO()
    torch.save(dict(tensors), out)
    return dice.choice((out.getvalue(), pickle.dumps(Evil()), pickle.dumps(Evil(), protocol=0)))


def words(dice: random.Random, flags: Sequence[str], values: Sequence[str] = ()) -> list[str]:
    """A few words of a command line; no half of a character in it, as the system hands them over."""
    stray = (
        "--",
        "-",
        "-x",
        "--=",
        "--..",
        "--a.b.c",
        "---",
        "-h=3",
        "--no-",
        "--seed=",
        "--debugg",
        "--max-time",
        "--max-time=x",
    )
    found = []
    for _ in range(dice.choice((1, 1, 2, 3, 5))):
        way = dice.random()
        flag = dice.choice(flags) if way < 0.75 else dice.choice(stray)
        if 0.6 < way < 0.75:
            flag = spoiled(flag.encode(), dice).decode("utf-8", "replace")
        found.append(flag)
        for _ in range(dice.choice((0, 1, 1, 1, 2))):
            value = dice.choice(values) if values and dice.random() < 0.3 else odd(dice)
            found.append(value if isinstance(value, str) else json.dumps(value))
    return [safe_word(word) for word in found]


def safe_word(word: str) -> str:
    """A word as the system hands it over, and no path outside of the box: commands write where they are told to."""
    word = word.encode("utf-8", "replace").decode().replace("\0", "?")
    return word.replace("/etc", "etc").replace("~", "+")
