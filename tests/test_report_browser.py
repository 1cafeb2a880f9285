"""The page in a browser, and what makes it readable by everyone: widths, themes, errors, size, keyboard, colours."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest
from measure_documents import document
from report_runs import write_run
from test_report import HOSTILE, Page

from leap.report import page as report_page
from leap.report import write_report
from leap.report.drawing import DARK_GREY, DARK_PALETTE, GREY, PALETTE
from leap.report.matrix_table import matrix_style, matrix_table
from leap.report.measures import parse_measures
from leap.report.style import style_sheet

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
WIDTHS = (360, 400, 1200)
PROBE = """<body><script>
const told = [], frames = [];
for (const theme of ["light", "dark"]) for (const width of %s) frames.push([theme, width]);
for (const [theme, width] of frames) {
  const frame = document.createElement("iframe");
  frame.style.cssText = `border:0;width:${width}px;height:800px;color-scheme:${theme}`;
  frame.onload = () => {
    const held = frame.contentDocument;
    told.push([theme, width, held.documentElement.scrollWidth, getComputedStyle(held.body).backgroundColor]);
    if (told.length == frames.length) document.body.dataset.told = JSON.stringify(told);
  };
  frame.src = "report.html";
  document.body.append(frame);
}
</script></body>"""


def _measured(folder: Path, content: dict[str, object]) -> Path:
    (folder / "measures").mkdir()
    (folder / "measures" / "measures.json").write_text(json.dumps(content))
    return folder


def _opened(page: Path, profile: Path) -> subprocess.CompletedProcess[str]:
    assert BROWSER is not None
    command = [
        BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", "--allow-file-access-from-files", "--enable-logging=stderr",
        "--hide-scrollbars", "--virtual-time-budget=20000", "--dump-dom", f"--user-data-dir={profile}", page.as_uri(),
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)


@pytest.mark.skipif(BROWSER is None, reason="no Chromium and no Chrome on this machine")
def test_the_page_fits_phones_and_desks_in_both_themes_without_a_word_on_the_console(tmp_path: Path) -> None:
    names = tuple(f"{name} with a long name {i}" for i, name in enumerate(HOSTILE))
    folders = [write_run(tmp_path, learner, 0, tasks=names) for learner in ("leap", "reptile")]
    _measured(folders[0], document(tasks=tuple(f"Task-without-a-space-in-its-name-{i}" for i in range(12)), seeds=1))
    write_report(folders, tmp_path / "report.html")
    (tmp_path / "probe.html").write_text(PROBE % list(WIDTHS))

    done = _opened(tmp_path / "probe.html", tmp_path / "profile")

    assert "CONSOLE" not in done.stderr, done.stderr
    told = re.search(r'data-told="(.*?)"', done.stdout)
    assert told, done.stdout[-500:]
    found = {(theme, width): seen for theme, width, *seen in json.loads(told[1].replace("&quot;", '"'))}
    ground = {"light": "rgb(255, 255, 255)", "dark": "rgb(21, 23, 27)"}
    assert found == {(theme, width): [width, ground[theme]] for theme in ground for width in WIDTHS}


@pytest.mark.parametrize("measured", [0, 50])
def test_fifty_runs_of_twenty_tasks_are_less_than_three_megabytes(
    measured: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = tuple(f"Alphabet number {i}" for i in range(20))
    folders = [
        write_run(tmp_path, "leap", seed, 20 + group, tasks=names, steps=100, meta_steps=60, inner_lr=group)
        for group in range(10)
        for seed in range(5)
    ]
    content = document(tasks=names, seeds=1, relations=False)
    for folder in folders[:measured]:
        _measured(folder, content)
    if measured:  # a page takes as long as its pictures: as many characters without drawing any
        part = "<section><h2>Task distances: one</h2>" + "x" * 340_000 + "</section>"
        monkeypatch.setattr(report_page, "measures_section", lambda *about: part)
        monkeypatch.setattr(report_page, "transfer_section", lambda *about: "")

    page = write_report(folders, tmp_path / "report.html")

    assert page.stat().st_size < 3_000_000
    source = page.read_text()
    shown = source.count("Task distances: one</h2>")
    if measured:
        assert shown == 4 and source.count("/measures</li>") == 50 - shown
        assert "leap (inner_lr=9), seed 4: " in source


def test_what_was_measured_of_one_run_is_shown_whatever_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [write_run(tmp_path, "leap", seed) for seed in (0, 1)]
    for folder in folders:
        _measured(folder, document(tasks=("a", "b", "c"), relations=False))
    monkeypatch.setattr(report_page, "MEASURED_SIZE", 10)
    source = write_report(folders, tmp_path / "report.html").read_text()
    assert "Task distances: leap, seed 0" in source and "Task distances: leap, seed 1" not in source
    assert f"leap, seed 1: {folders[1]}/measures" in source


def test_values_of_a_matrix_stand_in_its_cells_and_cells_tell_where_they_are() -> None:
    held = parse_measures(document(tasks=("Greek", "Korean", "<b>Thai</b>"), seeds=2))
    matrix = next(iter(held.matrices.values()))
    source = matrix_table(matrix, held.tasks, [2, 0, 1])
    page = Page(source)
    assert "b" not in page.tags and "<b>Thai</b>" in page.text
    assert page.tags.count("td") == 9 and source.count("title=") == 9
    assert re.findall(r'scope="row">(.*?)</th>', source) == ["&lt;b&gt;Thai&lt;/b&gt;", "Greek", "Korean"]
    assert 'tabindex="0"' in source and 'role="region"' in source
    cells = re.findall(r'<td title="(.*?)" class="(.*?)">(.*?)</td>', source)
    levels = {told.split(":")[0]: int(shade[1:]) for told, shade, _ in cells if shade != "own"}
    order = sorted(levels, key=lambda name: float(matrix.mean[tuple(map(held.tasks.index, _plain(name)))]))
    assert [levels[name] for name in order] == sorted(levels.values()) and levels[order[0]] == 0
    assert max(levels.values()) == 8
    told = next(told for told, _, _ in cells if told.startswith("Greek from Korean"))
    assert told.split("\u00b1")[1] == f" {np.std(matrix.values[:, 0, 1], ddof=1):.0f} nats"
    assert {shade for _, shade, _ in cells if shade != "own"} <= set(re.findall(r"\.([dos]\d)\{", matrix_style()))


def _plain(name: str) -> tuple[str, str]:
    target, source = name.replace("&lt;", "<").replace("&gt;", ">").split(" from ")
    return target, source


def test_a_page_is_read_in_order_by_keyboard(tmp_path: Path) -> None:
    folders = [write_run(tmp_path, learner, seed) for learner in ("leap", "reptile") for seed in (0, 1)]
    content = document(tasks=("a", "b", "c"), seeds=1, relations=False)
    content["matrices"] = {"fisher": content["matrices"]["fisher"]}
    _measured(folders[0], content)
    source = write_report(folders, tmp_path / "report.html").read_text()
    levels = [int(level) for level in re.findall(r"<h(\d)", source)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(two - one <= 1 for one, two in pairwise(levels))
    targets = re.findall(r'href="#(\w+)"', source.split("</nav>")[0])
    assert targets[0] == "contents" and len(targets) > 8
    assert set(targets) <= set(Page(source).ids)
    assert all('tabindex="0"' in box for box in re.findall(r'<(?:div class="scroll"|pre)[^>]*>', source))
    figures = re.findall(r"<figure[^>]*>", source)
    assert len(figures) > 5 and all("aria-label" in one for one in figures)
    assert source.count("<figcaption>") == len(figures) and all(
        'aria-hidden="true"' in svg for svg in re.findall(r"<svg[^>]*>", source)
    )


# Colours


def _channels(colour: str) -> np.ndarray:
    return np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])


def _linear(colour: str) -> np.ndarray:
    held = _channels(colour)
    return np.where(held <= 0.04045, held / 12.92, ((held + 0.055) / 1.055) ** 2.4)


def _contrast(one: str, two: str) -> float:
    light = sorted(float(_linear(c) @ [0.2126, 0.7152, 0.0722]) for c in (one, two))
    return (light[1] + 0.05) / (light[0] + 0.05)


# What eyes without red, green or blue cones see of linear colours (Machado et al. 2009, severity 1).
BLIND = {
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def _lab(linear: np.ndarray) -> np.ndarray:
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    xyz = (np.array(to_xyz) @ np.clip(linear, 0, 1)) / [0.9505, 1.0, 1.089]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("palette", [(*PALETTE, GREY), (*DARK_PALETTE, DARK_GREY)])
@pytest.mark.parametrize("eyes", ["all", *BLIND])
def test_lines_differ_for_all_eyes(palette: tuple[str, ...], eyes: str) -> None:
    seen = [_lab(np.array(BLIND.get(eyes, np.eye(3))) @ _linear(colour)) for colour in palette]
    nearest = min(float(np.linalg.norm(a - b)) for a, b in combinations(seen, 2))
    assert nearest > 7  # and every line has a marker and dashes of its own


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_stands_out_from_its_ground(theme: str) -> None:
    sheet = style_sheet()
    block = sheet.split("prefers-color-scheme:dark")[1 if theme == "dark" else 0]
    colours = dict(re.findall(r"--(\w+):(#\w{6})", block.split("}")[0]))
    for ground in ("paper", "panel"):
        for ink in ("ink", "muted", "accent"):
            assert _contrast(colours[ink], colours[ground]) >= 4.5, (theme, ink, ground)
    for fill, ink in re.findall(r"background:(#\w{6});color:(#\w{6})", matrix_style()):
        assert _contrast(fill, ink) >= 4.5
