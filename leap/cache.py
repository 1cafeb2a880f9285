"""Where things are kept on a machine that are made once and can be made again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """`$LEAP_CACHE`, else `$XDG_CACHE_HOME/leap`, else `~/.cache/leap`."""
    if own := os.environ.get("LEAP_CACHE"):
        return Path(own).expanduser()
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared).expanduser() / "leap"
    return Path(os.path.expanduser("~"), ".cache", "leap")
