"""Learning what likelihoods say, the file it is kept in, and the commands around it."""

import json
import random
from dataclasses import replace

import pytest

from algorithms.program import Generation
from certaindex.early_cut import EarlyCut
from certaindex.evidence import Evidence
from dynasor import embedded_model
from dynasor.config import load_config
from dynasor.errors import ConfigError, DataError
from dynasor.learn_evidence import learn_evidence
from dynasor.replay import collect_queries
from dynasor.traces import TraceSample, TraceWriter
from dynasor.vote_weights import early_cut, evidence_of, read_evidence, weigher


def samples(queries=30, each=8, seed=0, telling=True):
    """Right samples are likelier by two nats, if `telling`."""
    draw = random.Random(seed)
    for number in range(queries):
        for index in range(each):
            right = draw.random() < 0.7
            value = draw.gauss(-1.0 if right or not telling else -3.0, 0.5)
            yield TraceSample(
                f"q{number}",
                index,
                20,
                answer="7" if right else str(draw.randint(100, 999)),
                gold="7",
                logprobs=[min(value, -0.01)],
            )


def test_likelier_samples_that_agree_teach_that_likelihood_tells():
    lesson = learn_evidence(collect_queries(samples()))
    assert lesson.queries == 30
    assert lesson.separation > 0.97
    assert lesson.evidence.probability(-0.8) > 0.9 > 0.3 > lesson.evidence.probability(-3.0)


def test_likelihoods_that_tell_nothing_weigh_alike():
    lesson = learn_evidence(collect_queries(samples(100, telling=False)))
    assert lesson.separation == pytest.approx(0.5, abs=0.05)
    assert abs(lesson.evidence.slope) < 0.25


def test_a_sample_does_not_agree_with_itself():
    rows = [
        TraceSample(f"q{n}", i, 5, answer=f"{i}", gold="0", logprobs=[-0.1 * (i + 1)])
        for n in range(40)
        for i in range(3)
    ]
    with pytest.raises(DataError, match="same verdict"):
        learn_evidence(collect_queries(rows))


def test_samples_without_likelihoods_are_refused():
    rows = list(samples())
    rows[5] = replace(rows[5], logprobs=None)
    with pytest.raises(DataError, match="--logprobs"):
        learn_evidence(collect_queries(rows))


def test_the_embedded_model_brings_its_evidence_and_others_need_a_file(tmp_path):
    config = load_config(overrides={"algorithm": {"weigh": "evidence"}})
    assert evidence_of(config) == read_evidence(embedded_model.evidence())
    weigh = weigher(config)
    sure, doubtful = (
        weigh(Generation("r", "", 9, logprobs=[value] * 9)) for value in (-0.001, -0.5)
    )
    assert sure > 2 > 0.1 > doubtful
    other = {"algorithm": {"weigh": "evidence"}, "engine": {"model": "./other"}}
    with pytest.raises(ConfigError, match=r"needs algorithm\.evidence"):
        weigher(load_config(overrides=other))
    with pytest.raises(ConfigError, match=r"No such file.*dynasor evidence"):
        read_evidence(tmp_path / "none.json")
    (tmp_path / "odd.json").write_text('{"center": 1}')
    with pytest.raises(ConfigError, match="must be an object with center"):
        read_evidence(tmp_path / "odd.json")


def stumbling(queries=40, each=8, seed=0):
    """Wrong samples of 40 tokens are improbable from the third on."""
    draw = random.Random(seed)
    for number in range(queries):
        for index in range(each):
            right = draw.random() < 0.6
            yield TraceSample(
                f"q{number}",
                index,
                40,
                answer="7" if right else str(draw.randint(100, 999)),
                gold="7",
                logprobs=[-0.01] * 2 + [-0.01 if right else -6.0] + [-0.01] * 37,
            )


def test_where_cutting_pays_is_learned_and_can_be_turned_off(tmp_path):
    lesson = learn_evidence(collect_queries(stumbling()))
    assert (lesson.evidence.cut_below, lesson.evidence.look_every) == (lesson.cut.below, 8)
    assert lesson.cut.below > 0
    assert lesson.cut.saved == pytest.approx(0.4 * 0.8, abs=0.05), "8 tokens of 40 are spent"
    assert lesson.cut.lost == 0
    (tmp_path / "e.json").write_text(lesson.evidence.to_json())
    weighed = {"weigh": "evidence", "evidence": str(tmp_path / "e.json")}

    def cut_of(**more):
        return early_cut(load_config(overrides={"algorithm": {**weighed, **more}}))

    assert cut_of().every == 8
    assert cut_of(early_cut=False) is None
    assert cut_of(weigh="mean") is None
    assert learn_evidence(collect_queries(samples())).cut.below == 0, "samples of one token"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [({"cut_below": 1.0}, "cut_below must be"), ({"look_every": 0}, "look_every must be"),
     ({"look_every": 2.5}, "look_every must be")],
)  # fmt: skip
def test_a_file_with_an_impossible_cut_is_refused(tmp_path, wrong, said):
    known = json.loads(learn_evidence(collect_queries(stumbling())).evidence.to_json())
    (tmp_path / "odd.json").write_text(json.dumps(known | wrong))
    with pytest.raises(ConfigError, match=said):
        read_evidence(tmp_path / "odd.json")


def test_a_file_that_says_nothing_of_cutting_cuts_nothing(tmp_path):
    known = json.loads(learn_evidence(collect_queries(stumbling())).evidence.to_json())
    del known["cut_below"], known["look_every"]
    (tmp_path / "old.json").write_text(json.dumps(known))
    assert EarlyCut.of(read_evidence(tmp_path / "old.json")) is None


def test_replay_counts_the_tokens_until_the_cut(run_here, tmp_path):
    trace, file = tmp_path / "samples.jsonl", tmp_path / "evidence.json"
    writer = TraceWriter(trace)
    for sample in stumbling():
        writer.write(sample)
    writer.close()
    done = run_here("evidence", trace, "--out", file)
    assert "below" in done.stdout, done.stderr
    arguments = ("replay", trace, "--rule", "fixed:8", "--orders", 5, "--evidence", file, "--json")
    cut, whole = (
        json.loads(run_here(*arguments, *more).stdout)["rules"][0]
        for more in ((), ("--no-early-cut",))
    )
    assert whole["tokens"] == 8 * 40
    # Of the samples 40% are wrong and cost 8 of 40 tokens, but for the one that is spared.
    assert cut["tokens"] / whole["tokens"] == pytest.approx(1 - 0.8 * 0.4 * 7 / 8, abs=0.05)
    assert cut["samples"] == 8


def test_the_command_learns_and_replay_uses_it(run_here, tmp_path):
    trace, file = tmp_path / "samples.jsonl", tmp_path / "evidence.json"
    writer = TraceWriter(trace)
    for sample in samples(40):
        writer.write(sample)
    writer.close()
    done = run_here("evidence", trace, "--out", file, "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["separation"] > 0.95
    learned = Evidence.from_json(file.read_text())
    assert learned.samples == 320
    assert told["evidence"]["slope"] == learned.slope
    rules = ("--rule", "evidence:2", "--orders", 20, "--json")
    plain = json.loads(run_here("replay", trace, *rules).stdout)["rules"][0]
    weighed = json.loads(run_here("replay", trace, *rules, "--evidence", file).stdout)["rules"][0]
    assert weighed["tokens"] < 0.9 * plain["tokens"]
    assert weighed["accuracy"] >= plain["accuracy"] - 0.02


def test_bad_input_is_told_in_a_line(run_here, tmp_path):
    trace = tmp_path / "samples.jsonl"
    writer = TraceWriter(trace)
    writer.write(TraceSample("q", 0, 5, answer="1", gold="1"))
    writer.close()
    for arguments, said in (
        (("evidence", trace), "--logprobs"),
        (("evidence", tmp_path / "none.jsonl"), "none.jsonl"),
        (("replay", trace, "--evidence", tmp_path / "none.json"), "none.json"),
        (("bench", "embedded", "--weigh", "guess"), "weigh"),
        (
            ("bench", "embedded", "--weigh", "evidence", "--model", "./none"),
            "needs algorithm.evidence",
        ),
    ):
        done = run_here(*arguments)
        assert (done.returncode, "Traceback" in done.stderr) == (2, False)
        assert said in done.stderr
