"""What every test stands on: one thread a process, no trace left in the user's home, and where the real images are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# Before torch is imported, here and in the commands that tests start: small tensors, and workers that share the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def no_account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Whoever runs the tests may have a wandb account; nothing is sent to it, nor kept in their home."""
    folder = tmp_path_factory.mktemp("wandb")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("WANDB_API_KEY", raising=False)
        patch.setenv("NETRC", str(folder / "netrc"))
        for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
            patch.setenv(name, str(folder))
        yield


@pytest.fixture(params=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> Any:
    """A type of numbers that loops in C are compiled for."""
    import torch

    return getattr(torch, request.param)


@pytest.fixture
def data_folder() -> Path:
    """The folder with the real images (`omniglot/` and others), from LEAP_DATA."""
    named = os.environ.get("LEAP_DATA")
    if not named:
        pytest.skip("LEAP_DATA is not set: it names the folder that holds omniglot/")
    folder = Path(named).expanduser().resolve()
    # A wrong path is a mistake, not a reason to test less.
    assert folder.is_dir(), f"LEAP_DATA={named} is not a folder"
    return folder
