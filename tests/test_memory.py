"""How much memory a run needed: what its rows tell, beginning with the run, and the table of costs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from report_runs import write_run

from leap import memory
from leap.cli.settings import Leap, Quadratic, Settings, Train
from leap.report import read_runs, write_report
from leap.report.captioned import NOTHING
from leap.report.cost import GPU_MEMORY, MEMORY, cost_cells
from leap.run import RunFolder

ROOT = Path(__file__).resolve().parents[1]
CPU = torch.device("cpu")
SMALL = Settings(
    Quadratic(), learner=Leap(), tracking="none", train=Train(2, 3, 2, checkpoint_every=1, execution="batched")
)
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the mark is that of the process's whole life")


def column(run: RunFolder) -> list[float]:
    return [row[memory.RESIDENT] for row in run.rows()]


def test_keys_are_those_of_the_report_and_explained() -> None:
    assert (memory.RESIDENT, memory.GPU) == (MEMORY, GPU_MEMORY)
    text = (ROOT / "docs" / "metrics.md").read_text()
    assert all(f"| `{key}` |" in text for key in (MEMORY, GPU_MEMORY))


def printed(code: str) -> list[float]:
    """The numbers that a fresh process prints: what other tests left behind is freed at any time, here never.

    The system takes back pages of files at any time too, so a test compares with sizes far above those of libraries.
    """
    where = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, env=where, capture_output=True, text=True, check=True
    )
    return [float(number) for number in done.stdout.split()]


@LINUX
def test_the_peak_is_what_was_held_at_once_in_mib_and_stays() -> None:
    before, during, after = printed(
        """
        import torch
        from leap import memory

        read = memory.peaks(torch.device("cpu"))
        before = read()["memory/peak_mib"]
        held = torch.ones(2**28)  # 1024 MiB, every page of them written
        during = read()["memory/peak_mib"]
        del held
        print(before, during, read()["memory/peak_mib"])
        """
    )
    assert 20 < before < 900
    assert 1024 < during < 1024 + before + 50
    assert after > 1024


@LINUX
def test_a_run_does_not_count_what_an_earlier_one_in_its_process_needed(tmp_path: Path) -> None:
    first, second, third, other = printed(
        f"""
        from pathlib import Path

        import torch
        from test_memory import SMALL, column

        from leap.cli import lifecycle

        def need(step, metrics):
            if step == 2:
                torch.ones(2**28)

        folder = Path({str(tmp_path)!r})
        print(*column(lifecycle.start(SMALL, folder / "one", need)))
        print(column(lifecycle.start(SMALL, folder / "other"))[-1])
        """
    )
    assert first <= second < 900 and other < 900
    assert third > 1024


@LINUX
def test_a_process_does_not_count_what_its_parent_held() -> None:
    ask = "import torch; from leap import memory; print(memory.peaks(torch.device('cpu'))()['memory/peak_mib'])"
    code = f"import subprocess, sys; x = bytearray(2**30); subprocess.run([sys.executable, '-c', {ask!r}], check=True)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert 20 < float(done.stdout) < 1000


def test_where_there_is_no_mark_of_linux_that_of_the_process_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "none")
    monkeypatch.setattr(memory, "_CLEAR", tmp_path / "none" / "none")
    read = memory.peaks(CPU)
    whole = read()[memory.RESIDENT]
    assert read().keys() == {memory.RESIDENT}
    monkeypatch.setattr(sys, "platform", "darwin")  # whose unit is the byte
    as_bytes = memory.peaks(CPU)()[memory.RESIDENT]
    assert whole is not None and as_bytes is not None and 20 < whole < 2**20
    assert as_bytes * 1024 == pytest.approx(whole, rel=0.1)


def test_memory_of_a_gpu_is_told_beside_it_since_the_run_began(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: asked.append(f"reset {device}"))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 3 * 2**20)
    read = memory.peaks(torch.device("cuda:1"))
    assert asked == ["reset cuda:1"]
    assert read()[memory.GPU] == 3.0 and read().keys() == {memory.RESIDENT, memory.GPU}
    assert asked == ["reset cuda:1"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_memory_of_a_real_gpu() -> None:
    device = torch.device("cuda")
    torch.ones(2**26, device=device)
    read = memory.peaks(device)
    before = read()[memory.GPU]
    held = torch.ones(2**25, device=device)
    after = read()[memory.GPU]
    assert before is not None and after is not None and after - before == pytest.approx(128, abs=4)
    assert held.is_cuda and before < 200


def logged(root: Path, seed: int, rows: list[dict[str, Any]]) -> Path:
    folder = write_run(root, "leap", seed)
    (folder / "metrics.jsonl").write_text(
        "".join(json.dumps({"step": n + 1, **row}) + "\n" for n, row in enumerate(rows))
    )
    return folder


def test_the_table_of_costs_has_the_mean_of_the_runs_peaks(tmp_path: Path) -> None:
    one = logged(tmp_path, 0, [{MEMORY: 300.0}, {MEMORY: 500.0}, {MEMORY: 400.0}])  # taken up after the second row
    other = logged(tmp_path, 1, [{MEMORY: 700.0}])
    assert cost_cells(read_runs([one, other]))[-1] == "600 MiB"
    page = write_report([one, other], tmp_path / "page.html").read_text()
    assert "peak memory" in page and "600 MiB" in page


@pytest.mark.parametrize(
    ("rows", "cell"),
    [
        ([{}], NOTHING),
        ([{MEMORY: None}], NOTHING),
        ([{MEMORY: "much"}], NOTHING),
        ([{}, {MEMORY: 3072.0}], "3.0 GiB"),  # begun by an earlier version
        ([{MEMORY: 2048.0, GPU_MEMORY: 512.0}], "2.0 GiB, GPU 512 MiB"),
    ],
)
def test_runs_without_it_have_a_dash(rows: list[dict[str, Any]], cell: str, tmp_path: Path) -> None:
    assert cost_cells(read_runs([logged(tmp_path, 0, rows)]))[-1] == cell


def test_a_mean_over_some_of_the_runs_is_not_told(tmp_path: Path) -> None:
    both = [logged(tmp_path, 0, [{MEMORY: 300.0}]), logged(tmp_path, 1, [{"train/loss": 1.0}])]
    assert cost_cells(read_runs(both))[-1] == NOTHING
    assert NOTHING in write_report(both, tmp_path / "page.html").read_text()
