"""scripts/scaling.py prints what docs/scaling.md holds."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

PATH = Path(__file__).parents[1] / "scripts" / "scaling.py"


def test_it_prints_a_row_for_every_case(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    spec = importlib.util.spec_from_file_location("scaling", PATH)
    assert spec is not None and spec.loader is not None
    scaling = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(scaling)
    monkeypatch.setattr(scaling, "AXES", {"filters": ("filters", [(1, 1, 8), (1, 2, 16)])})
    scaling.main(["--rounds", "1"])
    title, *rows = capsys.readouterr().out.splitlines()
    assert title == "filters"
    assert [re.sub(r" +\d+ ms", "", row).split() for row in rows] == [
        ["8", "2,076", "parameters"], ["16", "7,588", "parameters"],
    ]  # fmt: skip
    with pytest.raises(SystemExit):
        scaling.main(["--rounds", "0"])
    assert "--rounds is at least 1, got 0" in capsys.readouterr().err
