"""Where things are kept on a machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from leap.cache import cache_folder


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"LEAP_CACHE": "/a", "XDG_CACHE_HOME": "/b"}, "/a"),
        ({"LEAP_CACHE": "", "XDG_CACHE_HOME": "/b"}, "/b/leap"),
        ({"LEAP_CACHE": "", "XDG_CACHE_HOME": "", "HOME": "/c"}, "/c/.cache/leap"),
    ],
)
def test_cache_folder(variables: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == Path(expected)
