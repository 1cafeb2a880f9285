"""Omniglot as read from its zips: the right drawings in the right places, and a clear word about every bad zip."""

import io
import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from leap.errors import UsageError
from tasks import omniglot
from tasks.drawings import Drawings
from tasks.omniglot import PARTS, Part

Entries = dict[str, bytes]


def png(ink: np.ndarray, mode: str = "1") -> bytes:
    """A PNG with ink black on white, as Omniglot's."""
    buffer = io.BytesIO()
    Image.fromarray(np.where(ink, 0, 255).astype(np.uint8)).convert(mode).save(buffer, "PNG")
    return buffer.getvalue()


def strip(left: int, right: int) -> np.ndarray:
    """A page of 105x105 with ink in the columns from `left` to `right`."""
    ink = np.zeros((105, 105), bool)
    ink[:, left:right] = True
    return ink


def toy(part: str, alphabet: str, first: int) -> Entries:
    """An alphabet of two characters, written in an order that is not the sorted one."""
    return {
        f"{part}/{alphabet}/character{c:02}/{first + c:04}_{drawer:02}.png": png(strip(c, c + drawer))
        for c in (2, 1)
        for drawer in reversed(range(1, 21))
    }


def store(path: Path, entries: Entries) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEAP_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an Omniglot of two alphabets in two zips."""
    monkeypatch.setattr(omniglot, "PARTS", (Part("images_background", 1, 2), Part("images_evaluation", 1, 2)))
    store(tmp_path / "images_background.zip", toy("images_background", "Zeta", 1))
    store(tmp_path / "images_evaluation.zip", toy("images_evaluation", "Alpha", 3))
    return tmp_path


def change(folder: Path, edit: Callable[[Entries], object]) -> Path:
    """The background zip with its entries edited."""
    path = folder / "images_background.zip"
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    edit(entries)
    store(path, entries)
    return path


def test_order_is_by_name_and_drawer_whatever_the_order_in_the_zips(small: Path) -> None:
    drawings = omniglot.load(small)
    assert drawings.names == ("Alpha", "Zeta")
    assert drawings.characters == (("character01", "character02"),) * 2
    for images in drawings.images:
        # Drawer d of character c drew the columns from c to c + d: the ink grows with the drawer.
        weight = images.astype(float).sum(axis=(2, 3)) / 255 * (105 / 28) ** 2 / 105
        np.testing.assert_allclose(weight, np.tile(np.arange(1, 21), (2, 1)), atol=0.15)


def test_pixels_are_shares_of_ink(small: Path) -> None:
    # 105/28 = 3.75 columns a pixel: ink in columns 1 to 2 covers 1/3.75 of the first pixel and nothing else; ink in
    # columns 1 to 5 covers 2.75/3.75 of the first and 1.25/3.75 of the second.
    images = omniglot.load(small).images[0][0]
    one, four = images[0, 14], images[3, 14]
    assert one.tolist() == [round(255 / 3.75)] + [0] * 27
    assert four.tolist() == [round(255 * 2.75 / 3.75), round(255 * 1.25 / 3.75)] + [0] * 26


def test_zips_may_lie_in_a_folder_omniglot(small: Path) -> None:
    expected = omniglot.load(small)
    (small / "omniglot").mkdir()
    for part in PARTS:
        (small / f"{part.folder}.zip").rename(small / "omniglot" / f"{part.folder}.zip")
    found = omniglot.load(small)
    assert all(np.array_equal(a, b) for a, b in zip(found.images, expected.images, strict=True))


def test_changed_zips_are_not_answered_from_the_cache(small: Path) -> None:
    before = omniglot.load(small).images[1]
    name = "images_background/Zeta/character01/0002_07.png"
    change(small, lambda entries: entries.update({name: png(strip(50, 60))}))
    after = omniglot.load(small).images[1]
    assert np.argwhere((before != after).any(axis=(2, 3))).tolist() == [[0, 6]]


def test_entries_that_are_no_drawings_are_not_read_or_written(small: Path) -> None:
    expected = omniglot.load(small)
    strange = {"../escape.png": b"no", "__MACOSX/images_background/._x.png": b"no", "images_background/README": b"no"}
    change(small, lambda entries: entries.update(strange))
    assert omniglot.load(small).characters == expected.characters
    assert not (small.parent / "escape.png").exists()


def test_missing_zip_names_folder_and_cure(small: Path) -> None:
    (small / "images_evaluation.zip").unlink()
    with pytest.raises(UsageError, match=r"images_evaluation\.zip in .*leap fetch omniglot.*LEAP_DATA") as caught:
        omniglot.load(small)
    assert str(small) in str(caught.value) and "images_background" not in str(caught.value)


def test_zip_cut_short_names_the_file(small: Path) -> None:
    path = small / "images_background.zip"
    whole = path.read_bytes()
    for length in (0, 10, len(whole) // 2, len(whole) - 5):
        path.write_bytes(whole[:length])
        with pytest.raises(UsageError, match=r"images_background\.zip is damaged at .*leap fetch omniglot"):
            omniglot.load(small)


def test_zip_with_altered_bytes_is_refused_or_harmless(small: Path) -> None:
    path = small / "images_background.zip"
    whole, expected = path.read_bytes(), omniglot.load(small).images[1]
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(150):
        altered = bytearray(whole)
        altered[random.integers(len(whole))] ^= int(random.integers(1, 256))
        path.write_bytes(altered)
        try:
            assert np.array_equal(omniglot.load(small).images[1], expected)
        except UsageError as error:
            assert "images_background.zip" in str(error)
            refused += 1
    assert refused > 75


ENTRY = "images_background/Zeta/character01/0002_07.png"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x89PNG\r\n\x1a\n garbage", "0002_07.png"),
        (png(strip(1, 5))[:60], "0002_07.png"),
        (b"not a picture", "0002_07.png"),
        (png(np.zeros((28, 28), bool)), "28x28 pixels"),
        (png(strip(1, 5), "L"), "mode L"),
        (bytes(100_000), "100000 bytes"),
    ],
    ids=["broken", "short", "text", "small", "grey", "huge"],
)
def test_bad_picture_is_named(small: Path, data: bytes, words: str) -> None:
    change(small, lambda entries: entries.update({ENTRY: data}))
    with pytest.raises(UsageError, match=r"images_background\.zip is damaged at images_background/Zeta/") as caught:
        omniglot.load(small)
    assert words in str(caught.value)


def test_missing_drawing_is_counted(small: Path) -> None:
    change(small, lambda entries: entries.pop(ENTRY))
    with pytest.raises(UsageError, match=r"19 drawings of Zeta/character01, Omniglot has 20"):
        omniglot.load(small)


def test_too_few_characters_and_alphabets(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(omniglot, "PARTS", PARTS)
    with pytest.raises(UsageError, match=r"1 alphabets with 2 characters, .* has 30 with 964"):
        omniglot.load(small)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Drawings]:
    if not os.environ.get("LEAP_DATA"):
        pytest.skip("LEAP_DATA is not set: it names the folder that holds omniglot/")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LEAP_CACHE", str(tmp_path_factory.mktemp("real")))
        first = omniglot.load()
        patch.setattr(omniglot, "_decode", lambda paths: pytest.fail("decoded again"))
        again = omniglot.load()
        assert first.names == again.names and first.characters == again.characters
        assert all(np.array_equal(a, b) for a, b in zip(first.images, again.images, strict=True))
        yield again


def test_real_omniglot_is_all_there(real: Drawings) -> None:
    sizes = dict(zip(real.names, (len(images) for images in real.images), strict=True))
    # Counts published with the data set; 46 alphabets have at least 20 characters.
    assert len(sizes) == 50 and sum(sizes.values()) == 1623
    assert (sizes["Tibetan"], sizes["Braille"], sizes["Gurmukhi"], sizes["Tagalog"]) == (42, 26, 45, 17)
    assert sum(size >= 20 for size in sizes.values()) == 46


def test_real_drawings_are_bright_ink_on_an_empty_page(real: Drawings) -> None:
    every = np.concatenate([images.reshape(-1, 28, 28) for images in real.images])
    ink = every.mean(axis=(1, 2)) / 255
    assert every.shape[0] == 32460
    assert 0.06 < ink.mean() < 0.1 and ink.min() > 0 and ink.max() < 0.5
    grey = (every > 0) & (every < 255)
    assert grey.mean() > 0.1  # antialiased, where nearest neighbour would leave two values


def test_real_drawings_lie_where_the_zip_says(real: Drawings) -> None:
    name = "images_evaluation/Tibetan/character08/"
    with zipfile.ZipFile(Path(os.environ["LEAP_DATA"], "omniglot", "images_evaluation.zip")) as archive:
        entry = next(n for n in archive.namelist() if n.startswith(name) and n.endswith("_13.png"))
        ink = np.asarray(Image.open(io.BytesIO(archive.read(entry)))) == 0
    # 4 x 105 = 15 x 28: every dot as 4x4 dots, then means over 15x15.
    expected = np.kron(ink, np.ones((4, 4))).reshape(28, 15, 28, 15).mean(axis=(1, 3))
    stored = real.images[real.names.index("Tibetan")][7, 12]
    np.testing.assert_allclose(stored / 255, expected, atol=0.5 / 255 + 1e-6)
