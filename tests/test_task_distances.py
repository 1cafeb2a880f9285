"""The script behind a table of RESULTS.md, on complexities whose answer is known."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "task_distances.py"
NAMES = ["mnist", "kmnist", "fashion", "ifashion"]


def document(shared: float) -> dict:
    """Two kinds of tasks: a union of two of one kind saves `shared` nats of their complexities, any other nothing."""
    whole = np.array([500.0, 700.0, 650.0, 640.0])
    same = np.array([[i // 2 == j // 2 for j in range(4)] for i in range(4)])
    union = whole[:, None] + whole[None] - np.where(same, shared, 0.0)
    reach = union - whole[None]
    table = {"values": [reach.tolist()] * 2, "unit": "nats", "label": "", "kind": "distance", "censored": None}
    single = {"values": [whole.tolist()] * 2, "unit": "nats", "label": ""}
    return {
        "tasks": NAMES, "seeds": [0, 1], "matrices": {"reachability": table}, "singles": {"complexity": single},
        "relations": [],
    }  # fmt: skip


def test_kinds_that_share_are_found_and_the_identity_holds(tmp_path, capsys, monkeypatch):
    (tmp_path / "measures").mkdir()
    (tmp_path / "measures" / "measures.json").write_text(json.dumps(document(shared=600.0)))
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), str(tmp_path)])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    told = capsys.readouterr().out
    assert "complexity (nats): mnist 500, kmnist 700, fashion 650, ifashion 640" in told
    assert told.count("nearest of the same kind for 4 of 4 (seeds alone: [4, 4])") == 2
    assert "mnist -> kmnist" in told and "antisymmetry: at most 0.0e+00" in told
    assert "reachability (nats): -100 to 700, median 570; over seeds 0 in the median pair" in told


def test_what_breaks_the_identity_is_measured():
    script = runpy.run_path(str(SCRIPT))
    broken = document(shared=0.0)
    broken["matrices"]["reachability"]["values"][1][0][2] += 3.0
    assert abs(script["antisymmetry"](broken) - 3.0) < 1e-9
