"""Suites from the package, from files and from the hub's loader; errors that name the place."""

import gzip
import json
from pathlib import Path

import pytest

from dynasor import suites
from dynasor.errors import DataError
from dynasor.suites import load_suite

DATA = Path(__file__).parents[3] / "shared" / "data"


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_the_embedded_suite_is_balanced():
    suite = load_suite("embedded", limit=50)
    assert len(suite.queries) == 50
    levels = [query.meta["level"] for query in suite.queries]
    assert all(levels.count(level) == 10 for level in range(1, 6))


def test_a_file_with_usual_fields(tmp_path):
    suite = load_suite(write(tmp_path / "mine.jsonl", {"id": 7, "problem": " 1+1? ", "answer": 2}))
    (query,) = suite.queries
    assert (suite.name, query.id, query.question, query.gold) == ("mine", "7", "1+1?", "2")


def test_reference_solutions_are_reduced_to_their_answer(tmp_path):
    rows = [
        {"question": "a", "answer": "5 + 5 = 10\n#### 1,010"},
        {"question": "b", "solution": "so \\boxed{\\frac{1}{2}}."},
        {"question": "c"},
    ]
    suite = load_suite(write(tmp_path / "s.jsonl", *rows))
    assert [query.gold for query in suite.queries] == ["1010", "\\frac{1}{2}", None]


def test_fields_can_be_named_and_files_packed(tmp_path):
    path = tmp_path / "s.jsonl.gz"
    with gzip.open(path, "wt") as file:
        file.write(json.dumps({"q": "1+1?", "a": "2"}) + "\n")
    suite = load_suite(str(path), question_field="q", answer_field="a")
    assert suite.queries[0].gold == "2"
    listed = tmp_path / "s.json"
    listed.write_text(json.dumps([{"question": "1?", "answer": "1"}]))
    assert len(load_suite(str(listed)).queries) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"question": "a"}\nrubbish\n', "line 2.*JSON"),
        ('{"question": "a"}\n[1]\n', "line 2.*object"),
        ('{"text": "a"}\n', "line 1.*question"),
        ('{"question": ""}\n', "line 1.*empty"),
        ('{"question": 5}\n', "line 1.*text"),
        ('{"id": "x", "question": "a"}\n{"id": "x", "question": "b"}\n', "line 2.*'x'"),
        ("", "no questions"),
        ('{"question": "a", "answer": {"x": 1}}\n', "line 1.*answer"),
    ],
)
def test_a_bad_line_is_named(tmp_path, content, message):
    path = tmp_path / "bad.jsonl"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        load_suite(str(path))


@pytest.mark.parametrize("spec", ["nowhere", "nowhere.jsonl", "embedded.txt"])
def test_an_unknown_suite_is_one_clear_error(spec):
    with pytest.raises(DataError, match=spec):
        load_suite(spec)


def test_a_limit_below_one_is_refused():
    with pytest.raises(DataError, match="--limit = 0"):
        load_suite("embedded", limit=0)


@pytest.mark.skipif(not DATA.exists(), reason="the shared data is not here")
def test_real_benchmark_files():
    gsm8k = load_suite(str(DATA / "gsm8k_test.jsonl"))
    assert len(gsm8k.queries) == 1319
    assert gsm8k.queries[0].gold == "18"
    math = load_suite(str(DATA / "math500_test.jsonl"))
    assert len(math.queries) == 500
    assert math.queries[0].gold is not None


def test_the_hub_loader_reads_a_data_set_of_the_same_schema(tmp_path, monkeypatch):
    pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    folder = tmp_path / "data"
    folder.mkdir()
    write(folder / "test.jsonl", {"question": "1+1?", "answer": "#### 2"})
    suite = load_suite(str(folder), split="test")
    assert suite.queries[0].gold == "2"


def test_no_network_is_said_with_a_way_out(monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match=r"owner/nothing.*\.jsonl"):
        load_suite("owner/nothing")


def test_a_file_has_no_splits():
    with pytest.raises(DataError, match="--split = train: embedded has no splits"):
        load_suite("embedded", split="train")


def test_a_folder_does_not_hide_a_known_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gsm8k").mkdir()
    monkeypatch.setattr(
        suites, "hub_rows", lambda source, split: [({"question": source[0], "answer": "1"}, "1")]
    )
    assert load_suite("gsm8k", question_field="question").queries[0].question == "openai/gsm8k"
