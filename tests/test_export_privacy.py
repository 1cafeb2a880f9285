"""What an export does not tell: folders, accounts and the machine, wherever in a run they stand."""

from __future__ import annotations

import dataclasses
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shared_runs import FAMILIES, OWN, contents, finished, small

from leap.cli import configuration, export
from leap.cli.settings import Settings
from leap.sharing import privacy


def test_no_place_and_no_account_is_told(tmp_path):
    own = dataclasses.replace(OWN.tasks, options={"root": f"{tmp_path}/data", "how": ["--at=/home/someone/x", "a/b"]})
    base = Settings()
    told = dataclasses.replace(
        OWN, tasks=own, wandb=dataclasses.replace(base.wandb, entity="someone", group="someones"),
        compare=dataclasses.replace(base.compare, learners=("leap", "/home/someone/mine.yaml")),
    )  # fmt: skip
    pictures = dataclasses.replace(
        FAMILIES["multi_cv"][0].tasks, names=("digits", "/home/someone/birds"), held_out=("/home/someone/birds",),
        folder="/home/someone/data",
    )  # fmt: skip
    many = dataclasses.replace(FAMILIES["multi_cv"][0], tasks=pictures)
    for name, given_settings, network in (("custom", told, None), ("pictures", many, FAMILIES["multi_cv"][1])):
        run = finished(tmp_path / name, given_settings, network)
        out = export.export(run.path, tmp_path / f"{name}-out")
        for content in contents(out).values():
            for secret in (str(tmp_path), "someone", "/home", "0a1b2c3d", "somewhere", "A processor", "/opt"):
                assert secret.encode() not in content
        read = configuration.load(Settings, [out / "config.yaml"])  # what is left are settings still
        assert read.train == given_settings.train and read.seed == given_settings.seed
    assert read.tasks.names == ("digits", "./birds") == (read.tasks.names[0], *read.tasks.held_out)
    assert read.tasks.folder is None


@pytest.mark.parametrize(
    "begin", ["/", "~/", "~her/", "file:///", "--at=/", "see (/", "x: /", "a,~/", "../", "/a b/", "'/"]
)
@given(last=st.text("ab .-_1", max_size=9))
def test_no_folder_is_left_of_a_path_wherever_it_stands(begin, last):
    found = privacy.without_path(f"{begin}home/secret/{last}")
    assert "home" not in found and "secret/" not in found and "her" not in found
    windows = privacy.without_path(f"{begin.rstrip('./~her')} C:\\home\\secret\\{last}")
    assert "home" not in windows and "secret\\" not in windows


@pytest.mark.parametrize("text", ["glyphs", "a/b", "10 / 3", "cuda:1", "https://a.org/b/c", "mean +/- std", "x\\y", ""])
def test_what_is_no_path_stays(text):
    assert privacy.without_path(text) == text


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("~/x", "./x"),
        ("~her", "."),
        ("~her/x", "./x"),
        ("..", "."),
        ("../her/x", "./x"),
        ("..\\her\\x", "./x"),
        ("data/../../her/x", "./x"),
        ("\\\\server\\her share\\x", "./x"),
        ("C:\\her things\\x", "./x"),
        ("C:\\her\\x\\", "./x"),
        ("C:/her/x", "./x"),
        ("file:///her things/x", "./x"),
        ("/opt/her/x/", "./x"),
        ("/opt/her/..", "."),
        ("/opt/~her", "."),
        ("/", "."),
        ("/home/her", "."),
        ("/Users/Her Name/", "."),
        ("C:\\Users\\her", "."),
        ("file:///home/her", "."),
        ("/srv/x", "./x"),
        ("/opt/her:/opt/you/x", "./x"),
        ("her@host:/opt/you/x", "./x"),
    ],
)
def test_of_a_path_its_last_part_is_left_unless_that_is_an_account(text, left):
    assert privacy.without_path(text) == left


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("--at=~her/x", "--at=x"),
        ("--at=~her", "--at=."),
        ("--at=../../her/x", "--at=x"),
        ("--at=a/../../her/x", "--at=x"),
        ("--at=\\\\server\\her\\x", "--at=x"),
        ("--at=C:\\her\\x", "--at=x"),
        ("--at=C:\\Users\\Her Name\\x", "--at=x"),
        ("--at=/Users/Her Name/x", "--at=x"),
        ("--at=file:///opt/her/x", "--at=x"),
        ("--at=file:/opt/her/x", "--at=x"),
        ("--at=/home/her", "--at=."),
        ("--at=/home/her --to=/home/you/", "--at=. --to=."),
        ("--at=file:///home/her", "--at=."),
        ("--at=/opt/her/x --to=/opt/her/y", "--at=x --to=y"),
        ("--at=/opt/her/x --to=a/b", "--at=x --to=a/b"),
        ("--at=/Users/her", "--at=."),
        ("--at=C:\\Users\\her", "--at=."),
        ("--at=/opt/lr=0.1/x", "--at=x"),
        ("read /opt/her/x and /opt/her/y", "read x and y"),
        ("see:/opt/her/y", "see:y"),
        ("https://her:word@a.org/b", "https://a.org/b"),
        ("ssh://her@a.org/b", "ssh://a.org/b"),
        ("--at=her@host:/opt/you/x", "--at=x"),
    ],
)
def test_paths_and_accounts_inside_a_text_lose_the_same(text, left):
    assert privacy.without_path(text) == left


def test_long_texts_take_no_time():
    """Patterns that go back over what they have read would take minutes."""
    begun = time.process_time()
    for part in ("a ", "/", "a/", "../", "x ../a b/", "/a b", "a@", "~a", "a=", "(("):
        text = "x=" + part * (40_000 if part == "a@" else 5_000)
        assert len(privacy.without_path(text)) <= len(text)
    assert time.process_time() - begun < 15


def test_settings_are_searched_in_every_depth():
    given = {"options": {"/opt/her/x": [("/opt/her/y", {"deep": "~her/z"})], "n": 3, "on": True, "no": None}}
    assert privacy.without_places(given) == {
        "options": {"./x": [["./y", {"deep": "./z"}]], "n": 3, "on": True, "no": None}
    }


FACTS = {
    "commit": "0123456789abcdef-dirty",
    "started": "2026-01-01T10:00:00+00:00",
    "execution": "batched",
    "processes": 4,
    "hardware": {"device": "NVIDIA H200 (MIG 1g.18gb)"},
    "versions": {"torch": "2.13.0+cpu", "ale-py": "0.11"},
}


def test_facts_of_every_kind_are_told():
    assert privacy.facts(FACTS) == {
        **{key: FACTS[key] for key in ("commit", "started", "execution", "processes", "versions")},
        "device": "NVIDIA H200 (MIG 1g.18gb)",
    }


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("commit", ["/opt/her", "0123456789abcdef her", "her", "", 7, None, ["0123456789abcdef"]]),
        ("started", ["2026-01-01T10:00:00 on her machine", "at night", 20260101.0, {}]),
        ("execution", ["batched on her machine", "/opt", 3, ["batched"]]),
        ("processes", ["her machine", [4], None, 4.0]),
        ("hardware", ["her machine", ["x"], *({"device": x} for x in ("/opt/her", ["cpu"], None, "x" * 61))]),
        ("versions", ["2.13", ["torch"], *({"torch": x} for x in ("/opt/her", 2, ["1"], "1 her")), {"/opt/her": "1"}]),
        ("command", ["leap train /opt/her"]),
        ("run_id", ["0a1b2c3d"]),
        ("engine", [{"cache": "/opt/her"}]),
        ("user", ["her"]),
    ],
)  # fmt: skip
def test_a_fact_of_another_form_is_left_out(key, values):
    rest = {name: value for name, value in FACTS.items() if name != key}
    for value in values:
        assert privacy.facts(rest | {key: value}) == privacy.facts(rest)


def test_a_hostile_provenance_reaches_no_file(tmp_path):
    run = small(tmp_path / "run")
    told = {"commit": "0123456 secret", "started": "secret", "execution": ["secret"], "processes": "secret",
            "hardware": {"device": "/secret", "host": "secret"}, "versions": {"torch": "1 secret", "secret/x": "1"},
            "command": "leap secret", "run_id": "secret", "engine": {"cache": "/secret"}, "user": "secret"}  # fmt: skip
    (run.path / "provenance.json").write_text(json.dumps(told))
    out = export.export(run.path, tmp_path / "out")
    assert not [name for name, content in contents(out).items() if b"secret" in content]
