"""Tests of tracking run without a wandb account, whoever runs them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def forget(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """No key, no network settings and an empty home folder."""
    for name in [name for name in os.environ if name.startswith("WANDB_") and name != "WANDB_SERVICE"]:
        monkeypatch.delenv(name)
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
