"""What leap.load reads is data: it executes nothing, and damage of any kind is one clear error."""

from __future__ import annotations

import dataclasses
import itertools
import pickle

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shared_runs import OWN, finished, refused, small
from torch import nn

import leap
from leap.cli import export
from leap.errors import LeapError, UsageError


@pytest.fixture
def run(tmp_path):
    return small(tmp_path / "run")


def test_nothing_of_a_folder_is_executed(tmp_path):
    marker = tmp_path / "executed"
    evil = f"open({str(marker)!r}, 'w').write('x')\n"
    run = small(tmp_path / "run")
    out = export.export(run.path, tmp_path / "out")
    for folder in (run.path, out):
        for name in ("model.py", "__init__.py", "sitecustomize.py"):
            (folder / name).write_text(evil)
        leap.load(folder)
    source = tmp_path / "mine.py"
    source.write_text(f"{evil}def make(**options): {evil}")
    own = dataclasses.replace(OWN, tasks=dataclasses.replace(OWN.tasks, source=f"{source}:make"))
    custom = finished(tmp_path / "custom", own)
    leap.load(custom.path, module=nn.Linear(3, 2))
    with pytest.raises(UsageError):
        leap.load(custom.path)
    export.export(custom.path, tmp_path / "custom-out")
    assert not marker.exists()


def test_no_pickle_is_read(tmp_path, run):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    for data in (pickle.dumps(Evil()), None):
        if data is None:
            torch.save({"theta": torch.ones(3)}, run.initialization)
        else:
            run.initialization.write_bytes(data)
        assert "damaged or was not written by leap" in refused(run.path)
    assert not (tmp_path / "executed").exists()


def foreign():
    """Whole safetensors files of others, and headers that are not what they should be."""
    import safetensors.torch

    tensors = {"weight": torch.ones(2, 3), "bias": torch.ones(2)}
    yield safetensors.torch.save(tensors)
    yield safetensors.torch.save(tensors, metadata={"format": "pt"})
    for about in ("[]", "3", "null", "{}", '"x"', "[" * 5000, '{"sha256": 3}', "", "\ud7ff"):
        yield safetensors.torch.save(tensors, metadata={"leap": about})
    for header in (
        b"[]",
        b"3",
        b"null",
        b"{}",
        b'{"__metadata__": []}',
        b'{"__metadata__": {"leap": {}}}',
        b"[" * 99999,
    ):
        yield len(header).to_bytes(8, "little") + header
    yield b""
    yield (2**63).to_bytes(8, "little")
    yield b"\xff" * 64


@pytest.mark.parametrize("number", range(len(list(foreign()))))
def test_files_of_others(run, number):
    run.initialization.write_bytes(next(itertools.islice(foreign(), number, None)))
    assert len(refused(run.path)) < 600


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damage_of_any_kind_is_one_clear_error_or_does_not_matter(tmp_path_factory, data):
    base = tmp_path_factory.getbasetemp() / "damaged"
    if not base.exists():
        run = small(base / "run")
        export.export(run.path, base / "out")
    folder = base / data.draw(st.sampled_from(["run", "out"]))
    name = data.draw(st.sampled_from(["initialization.safetensors", "config.yaml", "layout.json"]))
    file = folder / name
    if not file.exists():
        return
    whole, expected = file.read_bytes(), leap.load(folder).vector
    place = data.draw(st.integers(0, len(whole) - 1))
    kind = data.draw(st.sampled_from(["flip", "cut", "insert"]))
    if kind == "flip":
        damaged = bytearray(whole)
        damaged[place] ^= 1 << data.draw(st.integers(0, 7))
    else:
        more = data.draw(st.binary(min_size=1, max_size=9)) if kind == "insert" else b""
        damaged = whole[:place] + more + (whole[place:] if kind == "insert" else b"")
    file.write_bytes(damaged)
    try:
        loaded = leap.load(folder)
        assert torch.equal(loaded.vector, expected)
    except LeapError as error:
        assert str(error)
    finally:
        file.write_bytes(whole)
