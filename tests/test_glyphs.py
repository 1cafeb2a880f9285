"""The embedded family: twenty different characters an alphabet, told apart by their drawings, the same from a seed.

And the store that keeps drawings between runs.
"""

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.ft2font import FT2Font
from scipy import ndimage

from leap.errors import RunError, UsageError
from tasks import drawings as store
from tasks import glyphs
from tasks.drawings import Drawings, cached, check

TWO = {name: glyphs.ALPHABETS[name] for name in ("Greek", "Ogham")}


@pytest.fixture(scope="module")
def every() -> Drawings:
    return glyphs.draw(0)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LEAP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def same(one: Drawings, other: Drawings) -> bool:
    images = all(np.array_equal(a, b) for a, b in zip(one.images, other.images, strict=True))
    return images and (one.names, one.characters) == (other.names, other.characters)


def test_every_alphabet_has_twenty_characters_and_no_font_draws_a_box_for_one() -> None:
    face = FT2Font(glyphs._font_path(glyphs.FONTS[0]))
    for name in glyphs.ALPHABETS:
        assert len({face.get_char_index(code) for code in glyphs.codes(name)} - {0}) == 20, name


def test_fonts_of_another_matplotlib_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(glyphs.ALPHABETS, "Linear B", "10000 10001")
    glyphs._codes_of.cache_clear()
    with pytest.raises(RunError, match=r"DejaVuSans\.ttf lacks U\+10000 \(Linear B\), U\+10001.*install matplotlib"):
        glyphs._codes_of(glyphs.FONTS[0])
    with pytest.raises(RunError, match=r"no font .*Fancy\.ttf.*install matplotlib"):
        glyphs.distance(65, "Fancy.ttf")


def test_characters_of_an_alphabet_differ_however_they_are_turned() -> None:
    """No rotation makes one character out of another: the best overlap (cosine) stays clear of 1."""

    def unit(pages: np.ndarray) -> np.ndarray:
        flat = pages.reshape(len(pages), -1)
        return flat / np.linalg.norm(flat, axis=1, keepdims=True)

    for name in glyphs.ALPHABETS:
        ink = np.stack([glyphs.distance(code) > 0 for code in glyphs.codes(name)]).astype(float)
        small = ndimage.gaussian_filter(ink, (0, 3, 3)).reshape(20, 28, 4, 28, 4).mean((2, 4))
        turned = (ndimage.rotate(small, angle, axes=(2, 1), reshape=False, order=1) for angle in range(0, 360, 15))
        overlap = np.max([unit(small) @ unit(pages).T for pages in turned], axis=0)
        np.fill_diagonal(overlap, 0)
        first, second = np.unravel_index(overlap.argmax(), overlap.shape)
        codes = glyphs.codes(name)
        assert overlap.max() < 0.95, (name, chr(codes[first]), chr(codes[second]), overlap.max())


def test_drawings_tell_characters_apart(every: Drawings) -> None:
    """The nearest of 15 drawings a character names the other five far better than chance (95 percent error)."""
    errors = {}
    for name, images in zip(every.names, every.images, strict=True):
        pages = ndimage.gaussian_filter(images / 255, (0, 0, 1, 1))
        known, asked = pages[:, :15].reshape(300, -1), pages[:, 15:].reshape(100, -1)
        apart = (asked**2).sum(1)[:, None] + (known**2).sum(1) - 2 * asked @ known.T
        errors[name] = np.mean(apart.argmin(1) // 15 != np.arange(100) // 5)
    assert max(errors.values()) < 0.4, errors
    assert np.mean(list(errors.values())) < 0.2, errors


def test_drawings_of_a_character_differ(every: Drawings) -> None:
    for name, images in zip(every.names, every.images, strict=True):
        assert all(len({page.tobytes() for page in character}) == 20 for character in images), name
        weight = images.mean((2, 3))
        assert (weight.max(1) / weight.min(1) > 1.1).all(), name  # pens from thin to thick


def test_ink_is_bright_antialiased_and_centred_as_in_omniglot(every: Drawings) -> None:
    pages = np.concatenate([images.reshape(-1, 28, 28) for images in every.images])
    assert len(pages) == 30 * 400 and 0.06 < pages.mean() / 255 < 0.12
    assert ((pages > 0) & (pages < 255)).mean() > 0.1
    assert pages.reshape(len(pages), -1).max(1).min() > 200  # no pen so thin that a drawing fades away
    inked = pages > 60
    rows, columns = np.asarray(inked.any(axis=2)), np.asarray(inked.any(axis=1))
    for side in (rows, columns):
        first, last = side.argmax(1), 27 - side[:, ::-1].argmax(1)
        assert abs((first + last).mean() / 2 - 13.5) < 0.3
    extent = np.max([28 - side.argmax(1) - side[:, ::-1].argmax(1) for side in (rows, columns)], axis=0)
    assert 17 < np.median(extent) < 21 and extent.min() > 11 and extent.max() < 28
    border = np.ones((28, 28), bool)
    border[1:-1, 1:-1] = False
    assert (pages[:, border].max(1) > 128).mean() < 0.01  # hardly a drawing runs off its page


def test_stroke_width_follows_the_pen() -> None:
    field = glyphs.distance(ord("L"))
    thin, thick = ((field + glyphs._level(field, np.array([half]))[0] > 0).sum() for half in (2.5, 4.0))
    assert 1.3 < thick / thin < 1.9  # area is length times width


def test_maps_without_variation_leave_the_page_as_it_is() -> None:
    still = glyphs.Hand(rotation=0, scale=(1, 1), shear=0, translation=0, elastic=0)
    points = glyphs.maps(np.random.default_rng(0), 2, still)
    axis = np.arange(glyphs.GRID) * 2 + 0.5  # centres of 2x2 dots
    np.testing.assert_allclose(points[0, 0], np.tile(axis[:, None], (1, glyphs.GRID)), atol=1e-9)
    np.testing.assert_allclose(points[1, 1], np.tile(axis, (glyphs.GRID, 1)), atol=1e-9)


def test_rotation_keeps_lengths_and_scale_makes_ink_larger() -> None:
    turned = glyphs.maps(np.random.default_rng(3), 1, glyphs.Hand(40, (1, 1), 0, 0, 0))[:, 0]
    step = np.diff(turned, axis=2)[:, 0, 0]
    assert np.hypot(*step) == pytest.approx(2) and abs(step[0]) > 0.1
    larger = glyphs.maps(np.random.default_rng(3), 1, glyphs.Hand(0, (1.25, 1.25), 0, 0, 0))[:, 0]
    assert np.diff(larger, axis=2)[1, 0, 0] == pytest.approx(2 / 1.25)


DIGEST = """
from tasks import glyphs
import hashlib
glyphs.ALPHABETS = {name: glyphs.ALPHABETS[name] for name in ("Greek", "Ogham")}
print(hashlib.sha256(b"".join(images.tobytes() for images in glyphs.draw(5).images)).hexdigest())
"""


def test_same_seed_same_bits_in_another_process_and_another_seed_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(glyphs, "ALPHABETS", TWO)
    here = {
        seed: hashlib.sha256(b"".join(images.tobytes() for images in glyphs.draw(seed).images)).hexdigest()
        for seed in (5, 6)
    }
    environment = os.environ | {"OMP_NUM_THREADS": "2", "PYTHONHASHSEED": "7"}
    root = Path(glyphs.__file__).parents[1]
    command = [sys.executable, "-c", DIGEST]
    there = subprocess.run(command, env=environment, cwd=root, check=True, capture_output=True, text=True).stdout
    assert here[5] == there.strip() != here[6]


def test_an_alphabet_does_not_depend_on_the_others(every: Drawings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(glyphs, "ALPHABETS", TWO)
    alone = glyphs.draw(0)
    assert np.array_equal(alone.images[1], every.images[every.names.index("Ogham")])


def test_loaded_drawings_are_kept_for_their_seed_and_recipe(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(glyphs, "ALPHABETS", TWO)
    first = glyphs.load(5)
    with monkeypatch.context() as patch:
        patch.setattr(glyphs, "draw", lambda seed: pytest.fail("drawn again"))
        assert same(glyphs.load(5), first)
    assert not same(glyphs.load(6), first)
    monkeypatch.setattr(glyphs, "HAND", glyphs.Hand(rotation=0))
    assert not same(glyphs.load(5), first)
    assert len(list(folder.iterdir())) == 3


SMALL = Drawings(
    ("Runes", "Signs"),
    tuple(np.random.default_rng(i).integers(0, 256, (2 + i, 4, 28, 28), np.uint8) for i in range(2)),
    (("f", "u"), ("þ", "\u2203", "c")),
)


def test_cache_gives_back_what_was_built_once(folder: Path) -> None:
    assert same(cached("small", lambda: SMALL), SMALL)
    assert same(cached("small", lambda: pytest.fail("built again")), SMALL)
    assert [path.name for path in folder.iterdir()] == ["small.npz"]


def test_damaged_cache_is_built_anew(folder: Path) -> None:
    cached("small", lambda: SMALL)
    path = folder / "small.npz"
    whole = path.read_bytes()
    random = np.random.default_rng(0)
    damaged = [b"", b"text", whole[: len(whole) // 2], whole[:-1]]
    for place in (*range(0, 400, 9), *random.integers(0, len(whole), 30), *range(len(whole) - 600, len(whole), 9)):
        altered = bytearray(whole)
        altered[place] ^= int(random.integers(1, 256))
        damaged.append(bytes(altered))
    for data in damaged:
        path.write_bytes(data)
        assert same(cached("small", lambda: SMALL), SMALL)
    path.write_bytes(b"")
    cached("small", lambda: SMALL)
    assert same(store._read(path), SMALL)  # and what was built is kept again


def test_cached_file_that_fails_the_check_is_built_anew(folder: Path) -> None:
    store._write(folder / "small.npz", Drawings(("Runes",), (np.zeros((2, 4, 9, 9), np.uint8),), (("f", "u"),)))
    assert same(cached("small", lambda: SMALL), SMALL)


def test_folder_that_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("LEAP_CACHE", str(tmp_path / "file"))
    assert same(cached("small", lambda: SMALL), SMALL)


def test_full_disk_leaves_nothing_behind(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: object, target: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert same(cached("small", lambda: SMALL), SMALL)
    assert list(folder.iterdir()) == []


def test_cache_key_cannot_leave_the_folder(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"'\.\./small'"):
        cached("../small", lambda: SMALL)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d._replace(names=("Signs", "Runes")), "'Runes' stands after 'Signs'"),
        (lambda d: d._replace(names=("Runes", "Runes")), "'Runes' stands after 'Runes'"),
        (lambda d: d._replace(names=("Runes",)), "1 alphabets have 2 arrays"),
        (lambda d: d._replace(images=(d.images[0], d.images[1] / 255)), "'Signs'.*uint8.*float64"),
        (lambda d: d._replace(images=(d.images[0], d.images[1][..., :27])), r"'Signs'.*\[3, 4, 28, 27\]"),
        (lambda d: d._replace(images=(d.images[0], d.images[1][:, 0])), r"'Signs'.*\[3, 28, 28\]"),
        (lambda d: d._replace(images=(d.images[0][:0], d.images[1])), r"'Runes'.*\[0, 4, 28, 28\]"),
        (lambda d: d._replace(images=(d.images[0], d.images[1][:, :3])), "'Signs' has 3 .*'Runes' has 4"),
        (lambda d: d._replace(characters=(("f",), d.characters[1])), "'Runes' has 1 names for 2"),
        (lambda d: d._replace(images=(d.images[0].tolist(), d.images[1])), "'Runes'.*list"),
    ],
)
def test_check_names_alphabet_and_value(change: Callable[[Drawings], Drawings], words: str) -> None:
    assert check(SMALL) is SMALL
    with pytest.raises(UsageError, match=words):
        check(change(SMALL))
