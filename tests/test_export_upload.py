"""leap export --upload: private unless asked otherwise, nothing but an export's files, and told in one line."""

from __future__ import annotations

import fnmatch
import re
import sys
import types

import pytest
import torch
from shared_runs import small

import leap
from leap.cli import export
from leap.errors import RunError, UsageError
from leap.sharing import folder as shared_folder
from leap.sharing import hub


@pytest.fixture
def run(tmp_path):
    return small(tmp_path / "run")


class Hub(types.ModuleType):
    """In the place of huggingface_hub: remembers what it is asked for."""

    def __init__(self, private=True, error=None):
        super().__init__("huggingface_hub")
        self.private, self.error, self.asked = private, error, []

    def HfApi(self):
        return self

    def create_repo(self, **given):
        self.asked.append(("create_repo", given))
        if self.error:
            raise self.error

    def repo_info(self, **given):
        return types.SimpleNamespace(private=self.private)

    def upload_folder(self, **given):
        self.asked.append(("upload_folder", given))


def uploaded(monkeypatch, fake, run, out, *more):
    monkeypatch.setitem(sys.modules, "huggingface_hub", fake)
    return export.main([str(run.path), "--to", str(out), "--license", "mit", "--upload", "me/first", *more])


def test_an_upload_is_private_and_told_in_one_line(tmp_path, run, monkeypatch, capsys):
    fake = Hub()
    assert uploaded(monkeypatch, fake, run, tmp_path / "out") == 0
    (_, made), (_, sent) = fake.asked
    assert made == {"repo_id": "me/first", "repo_type": "model", "private": True, "exist_ok": True}
    assert sent["folder_path"] == str(tmp_path / "out") and sent["repo_id"] == "me/first"
    assert set(sent["allow_patterns"]) == set(shared_folder.NAMES)
    assert not {"token"} & (made.keys() | sent.keys())  # its own login, and nothing of ours
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"uploading 6 files, [\d.]+ MB, of .*out to me/first \(private\)", lines[1])
    assert lines[2] == "uploaded https://huggingface.co/me/first" and len(lines) == 3


def test_a_public_repository_is_not_written_to_by_accident(tmp_path, run, monkeypatch, capsys):
    fake = Hub(private=False)
    with pytest.raises(UsageError, match="me/first is public, so anyone would see"):
        uploaded(monkeypatch, fake, run, tmp_path / "out")
    assert [what for what, _ in fake.asked] == ["create_repo"]
    fake = Hub(private=False)
    assert uploaded(monkeypatch, fake, run, tmp_path / "out", "--public") == 0
    assert fake.asked[0][1]["private"] is False and "(public)" in capsys.readouterr().out


@pytest.mark.parametrize("error", [OSError("no network"), RuntimeError("401\nClient Error"), ValueError("bad name")])
def test_an_upload_that_fails_says_so_and_the_folder_stays(tmp_path, run, monkeypatch, error):
    with pytest.raises(RunError, match=r"the upload to me/first failed .*out is whole.*hf auth login"):
        uploaded(monkeypatch, Hub(error=error), run, tmp_path / "out")
    assert torch.equal(leap.load(tmp_path / "out").vector, leap.load(run.path).vector)


def test_without_the_library_nothing_is_written(tmp_path, run, monkeypatch):
    with pytest.raises(UsageError, match=r"metaleap\[hub\]"):
        uploaded(monkeypatch, None, run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_where_it_is_seen_is_asked_of_the_hub_and_not_of_the_command(tmp_path, run, monkeypatch, capsys):
    """A repository that was made private stays so, whatever is asked for now."""
    fake = Hub(private=True)
    assert uploaded(monkeypatch, fake, run, tmp_path / "out", "--public") == 0
    assert "to me/first (private)" in capsys.readouterr().out


def test_what_came_into_the_folder_since_is_neither_sent_nor_counted(tmp_path, run, monkeypatch):
    out, said, fake = export.export(run.path, tmp_path / "out"), [], Hub()
    (out / "notes.txt").write_bytes(bytes(5_000_000))
    monkeypatch.setitem(sys.modules, "huggingface_hub", fake)
    hub.upload(out, "me/first", public=False, say=said.append)
    assert len(said) == 1 and said[0].startswith("uploading 6 files, 0.0 MB")
    patterns = fake.asked[-1][1]["allow_patterns"]
    assert not any(fnmatch.fnmatch("notes.txt", pattern) for pattern in patterns)
    assert all(any(fnmatch.fnmatch(name, pattern) for pattern in patterns) for name in shared_folder.NAMES)


def test_a_wrong_name_is_refused_before_the_library_is_looked_for(tmp_path, run, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UsageError, match="USER/NAME"):
        export.main([str(run.path), "--to", str(tmp_path / "out"), "--upload", "nobody"])
    assert not (tmp_path / "out").exists()


BAD_NAMES = [
    *(
        "",
        "x",
        "a/b/c",
        "/a",
        "a/",
        "a/..",
        "a b/c",
        "a/b\n",
        "é/x",
        "aé/x",
        "a/xé",
        "a/b--c",
        "a--b/c",
        "a/b..c",
        "a..b/c",
    ),
    *("a/x.git", "a/x.", "a/x-", ".a/x", "a/-x", "a" * 96 + "/x", "a/" + "x" * 96),
]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_that_are_no_repository(name):
    with pytest.raises(UsageError, match="USER/NAME"):
        hub.check_name(name)


@pytest.mark.parametrize("name", ["a/b", "me/first", "Some-one/leap_5.way-v2", "a" * 95 + "/" + "x" * 95])
def test_names_of_repositories(name):
    assert hub.check_name(name) == name
