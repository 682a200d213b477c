import json
import random
import subprocess
import sys

import pytest

from dynasor.cli import app
from dynasor.errors import DynasorError


def dynasor(*arguments, stdin="", code=0):
    found = subprocess.run(
        [sys.executable, "-m", "dynasor.cli", "rank", *map(str, arguments)],
        input=stdin.encode("utf-8", "surrogatepass"),
        capture_output=True,
        timeout=120,
        check=False,
    )
    error = found.stderr.decode()
    assert found.returncode == code, error
    assert "Traceback" not in error
    return found.stdout.decode() if code == 0 else error


def refused(*arguments):
    """What the command says, in this process, which is quicker."""
    with pytest.raises(DynasorError) as caught:
        app(["rank", *map(str, arguments)], standalone_mode=False)
    return str(caught.value)


@pytest.fixture
def rank(run_here):
    """What a command prints, in this process."""

    def run(*arguments, code=0):
        found = run_here("rank", *arguments)
        assert found.returncode == code, found.stderr
        return found.stdout if code == 0 else found.stderr

    return run


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Built from a trace by the command; the longer the question, the longer its answers."""
    folder = tmp_path_factory.mktemp("rank")
    draw = random.Random(0)
    with (folder / "trace.jsonl").open("w") as file:
        for number in range(400):
            words = draw.randint(1, 40)
            prompt = " ".join(draw.choice(["owl", "tide", "glass"]) for _ in range(words))
            for sample in range(2):
                row = {
                    "query": str(number),
                    "sample": sample,
                    "tokens": min(300, round(words * 10 * draw.uniform(0.5, 1.5))),
                    "prompt": f"{number} {prompt}",
                }
                row["finish_reason"] = "length" if row["tokens"] == 300 else "stop"
                file.write(json.dumps(row) + "\n")
    card = json.loads(
        dynasor("build-data", folder / "trace.jsonl", "--out", folder / "data", "--json")
    )
    assert sum(card["examples"].values()) == 400
    assert card["answers"] == 800
    assert card["examples_with_cut_answers"] > 10
    return folder / "data"


def test_eval_prints_one_object(rank, data):
    found = json.loads(rank("eval", data, "--model", "prompt-length", "--json", "--draws", 20))
    needed = {"n", "tau", "spearman", "ndcg", "latency_ratio_to_fcfs", "latency_ratio_to_oracle"}
    assert needed <= set(found)
    assert found["n"] == json.loads((data / "card.json").read_text())["examples"]["test"]
    assert found["tau"] > 0.6
    assert found["latency_ratio_to_fcfs"] > 1.05
    low, high = found["intervals"]["tau"]
    assert low < found["tau"] < high


def test_train_cheap_eval_and_score(rank, data, tmp_path):
    pytest.importorskip("lightgbm")
    out = tmp_path / "model"
    made = json.loads(
        rank("train-cheap", data, "--out", out, "--rounds", 60, "--name", "mine", "--json")
    )
    assert made["validation_tau"] > 0.5
    table = rank("eval", data, "--model", "prompt-length", "--model", out, "--draws", 10)
    assert "Kendall's tau" in table
    assert "more than the first" in table
    prompts = "owl\n\n" + "owl " * 40 + "\n" + "x" * 1_000_000 + "\n"
    short, empty, long, _ = map(float, dynasor("score", "--model", out, stdin=prompts).split())
    assert short < long
    assert empty == 0.5
    assert "is there already" in refused("train-cheap", data, "--out", out)


def test_score_reads_lines_and_json(rank, tmp_path):
    rows = [{"prompt": "hello"}, {"prompt": [{"role": "user", "content": "hello"}]}, {"prompt": ""}]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = rank("score", tmp_path / "p.jsonl", "--model", "prompt-length", "--json")
    found = [json.loads(line) for line in out.splitlines()]
    assert [row["line"] for row in found] == [1, 2, 3]
    assert found[0]["score"] == found[1]["score"] > found[2]["score"] == 0
    (tmp_path / "p.txt").write_text('{"prompt": "hello"}\n')
    (line,) = rank("score", tmp_path / "p.txt", "--model", "prompt-length").split()
    assert float(line) > found[0]["score"]  # a text of its own, not JSON
    (tmp_path / "q.jsonl").write_text("{}")
    error = refused("score", tmp_path / "q.jsonl", "--model", "prompt-length")
    assert "q.jsonl, line 1: field 'prompt'" in error


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("eval", "nothing.jsonl", "--model", "prompt-length"), "nothing.jsonl"),
        (("eval", "{data}", "--model", "nothing"), "no ranker in 'nothing'"),
        (("eval", "{data}", "--model", "prompt-length", "--turns", "odd"), "--turns"),
        (("eval", "{data}", "--model", "prompt-length", "--turns", "later"), "no later turns"),
        (("score", "nothing.txt", "--model", "prompt-length"), "nothing.txt"),
        (("build-data", "nothing", "--out", "x"), "no source 'nothing'"),
        (("train-cheap", "nothing", "--out", "x"), "is no folder"),
    ],
)
def test_wrong_input_is_one_line(data, tmp_path, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    error = refused(*(str(each).replace("{data}", str(data)) for each in arguments))
    assert says in error
    assert len(error.splitlines()) == 1


def test_data_without_lengths_and_with_equal_lengths(rank, tmp_path):
    line = {"prompt": "a", "conversation": "c"}
    (tmp_path / "none.jsonl").write_text(json.dumps(line) + "\n")
    error = refused("eval", tmp_path / "none.jsonl", "--model", "prompt-length")
    assert "line 1: field 'tokens' is missing" in error
    (tmp_path / "same.jsonl").write_text((json.dumps(line | {"tokens": 7}) + "\n") * 3)
    error = rank("eval", tmp_path / "same.jsonl", "--model", "prompt-length", code=2)
    assert error.strip().endswith("there is no order to predict; give other data")
    assert len(error.strip().splitlines()) == 1


def test_sharegpt_style_file_that_is_cut_off(rank, tmp_path):
    pytest.importorskip("bpe_openai")
    turns = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello there, friend."}] * 2
    rows = [
        {"id": f"{n}_0", "conversations": [turns[0] | {"value": f"Hi {n}"}, *turns[1:]]}
        for n in range(9)
    ]
    (tmp_path / "s.json").write_text(json.dumps(rows, indent=1)[:-60])
    card = json.loads(
        rank("build-data", tmp_path / "s.json", "--later-turns", "--out", tmp_path / "d", "--json")
    )
    assert sum(card["examples"].values()) == 16
    assert sum(card["first_turns"].values()) == 8
    assert card["tokenizer"] == "cl100k_base"
    assert card["tokens"]["50%"] == 5
