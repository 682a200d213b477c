"""`dynasor tune` and `dynasor capacity` on small recorded traces: chosen, refused, gone on with."""

import json
import random
import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dynasor.bench.arrivals import parse_traffic
from dynasor.bench.recorded import collect_questions
from dynasor.cli import app
from dynasor.commands.tune import _check_full_budget
from dynasor.config import Config, load_config
from dynasor.engines.calibration import Calibration
from dynasor.engines.step_time import StepTime
from dynasor.errors import ConfigError, DataError, DynasorError, RunError
from dynasor.slo.calibration_set import CalibrationSet
from dynasor.slo.load_model import ClassTraffic, LoadModel
from dynasor.slo.open_problem import problem_of
from dynasor.slo.outcomes import Setting
from dynasor.slo.prediction import Problem
from dynasor.slo.recorded_classes import classes_of
from dynasor.slo.refusal import SloRefusedError
from dynasor.slo.search import Tried, search
from dynasor.slo.space import Plan, Platform, Space, space_of
from dynasor.slo.tune import to_test
from dynasor.slo.tune import tune as tune_plans
from dynasor.slo.tuned_config import text_to_fill, write_config
from dynasor.traces import TraceSample, TraceWriter, read_traces

SAMPLES = 8
PROMISE = """# kept
[algorithm]
samples = 8

[slo]
rate = {rate}

[slo.classes.all]
epsilon = {epsilon}
latency = {{ p90 = {p90} }}  # so soon
"""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """80 queries, most of them easy: 8 samples agree; a tenth is a toss-up."""
    folder = tmp_path_factory.mktemp("recorded")
    draw = random.Random(0)
    with TraceWriter(folder / "trace.jsonl") as file:
        for query in range(80):
            sure = 0.55 if query % 10 == 0 else 0.99
            for sample in range(SAMPLES):
                answer = "1" if draw.random() < sure else str(draw.randint(2, 3))
                file.write(TraceSample(f"q{query}", sample, draw.randint(10, 40), answer, gold="1"))
    Calibration("toy", "none", StepTime(0.01, 0.0005), 100, 0.0, 16, 2048, 4096, 16).write(
        folder / "engine.json"
    )
    return folder


def tune(folder: Path, recorded: Path, *more: str, **promise: float) -> dict[str, object]:
    values = {"rate": 2, "epsilon": 0.15, "p90": 5.0} | promise
    config = folder / "promise.toml"
    config.write_text(PROMISE.format(**values), encoding="utf-8")
    arguments = ["tune", "--config", config, "--traces", recorded / "trace.jsonl", "--engine-times",
                 recorded / "engine.json", "--trials", "6", "--arrivals", "20", "--family",
                 "default", "--out", folder / "out", "--json", *more]  # fmt: skip
    result = CliRunner().invoke(app, [str(each) for each in arguments])
    if isinstance(result.exception, DynasorError):
        raise result.exception
    assert result.exit_code == 0, result.output
    found: dict[str, object] = json.loads(result.stdout)
    return found


def test_what_is_chosen_is_certified_cheaper_and_loads(tmp_path: Path, recorded: Path) -> None:
    found = tune(tmp_path, recorded)
    chosen = found["classes"]["all"]
    full = chosen["tested"][0]
    assert full["settings"]["rule"] == "never"
    assert chosen["calibration"]["p_value"] <= 0.1
    assert chosen["expected"]["tokens"] < full["tokens"]
    assert chosen["expected"]["latency"]["p90"] <= 5
    assert chosen["queries"] == {"search": 24, "calibrate": 40, "held": 16}

    config = load_config(tmp_path / "out" / "tuned.toml", environment={})
    setting = config.slo.classes["all"].settings
    assert config.allocator.rule == setting.rule == chosen["setting"]["rule"]
    text = (tmp_path / "out" / "tuned.toml").read_text(encoding="utf-8")
    assert "# kept" in text
    assert "# so soon" in text
    assert "confidence" in text
    kept = CalibrationSet.load(Path(config.slo.calibration or ""))
    assert kept.classes["all"].setting.settings == setting
    each = kept.classes["all"]
    for place, certified in enumerate(each.certified):
        full = certified.settings.rule == "never" and certified.settings.samples == SAMPLES
        assert len(each.reference(place)) == (0 if full and place != each.chosen else 40)
    fewer = load_config(tmp_path / "out" / "tuned.toml", {"algorithm": {"samples": 4}}, {})
    with pytest.raises(ConfigError, match="its full budget was 8: give --samples 8"):
        _check_full_budget(fewer)
    (tmp_path / "out").rename(tmp_path / "moved")
    moved = load_config(tmp_path / "moved" / "tuned.toml", environment={})
    assert CalibrationSet.load(Path(moved.slo.calibration or "")) == kept
    (tmp_path / "moved").rename(tmp_path / "out")
    assert (tmp_path / "out" / "pareto.png").stat().st_size > 10_000
    assert not list((tmp_path / "out").glob("*.partial"))

    with pytest.raises(RunError, match="another --out, or --fresh"):
        tune(tmp_path, recorded, rate=3)


def problem_and_space(recorded: Path) -> tuple[Problem, Space]:
    """Two classes on the same recorded queries."""
    queries = collect_questions(read_traces(recorded / "trace.jsonl"))
    config = Config.model_validate(
        {
            "algorithm": {"samples": SAMPLES},
            "slo": {
                "rate": 4,
                "classes": {
                    "hard": {"effort": "high", "epsilon": 0.1, "latency": {"p90": 2}},
                    "rest": {
                        "epsilon": 0.2,
                        "guarantee": "mean",
                        "share": 3,
                        "tokens_per_day": 10**8,
                    },
                },
            },
        }
    )
    space = space_of(
        ["default"], full_samples=SAMPLES, most_places=16, can_rank=False, replicas=(1, 3)
    )
    classes = {name: ClassTraffic(queries, each.share) for name, each in config.slo.classes.items()}
    engine = Calibration.read(recorded / "engine.json")
    return problem_of(config, engine, classes, space, "poisson", counted=20, seed=0), space


def test_a_search_of_two_classes_goes_on_where_it_was(tmp_path: Path, recorded: Path) -> None:
    problem, space = problem_and_space(recorded)

    def go_on(trials: int) -> list[Tried]:
        return search(
            problem, space, tmp_path / "study.db", trials=trials, seed=0, describes="this"
        )

    begun = go_on(4)
    assert len(begun) == 4
    assert begun[0].plan.settings["hard"].rule == "never"
    assert begun[0].loss == 0
    assert {each.plan.platform.replicas for each in begun} == {3}
    gone_on = go_on(6)
    assert gone_on[:4] == begun
    assert len(gone_on) == 6
    afresh, _ = problem_and_space(recorded)  # as after a kill: nothing was replayed yet
    assert to_test(afresh, "hard", gone_on) == to_test(problem, "hard", gone_on)
    tuned = tune_plans(problem, gone_on)
    assert set(tuned.plan.settings) == {"hard", "rest"}
    assert not problem.shortfalls(tuned.expected)
    assert all(tuned.chosen(name).certified for name in problem.promises)
    assert problem.class_rate("rest") == 3

    odd_order = (
        "[slo.classes.hard]\neffort = 'high'\nepsilon = 0.1\n\n[algorithm]\nsamples = 8 # full\n\n"
        "[slo]\nrate = 4\n\n[slo.classes.rest]\nepsilon = 0.2\nguarantee = 'mean'\n"
    )
    for text in (odd_order, odd_order.replace("[slo]\nrate = 4\n", "")):
        given, path = tmp_path / "given.toml", tmp_path / "tuned.toml"
        given.write_text(text, encoding="utf-8")
        config = load_config(given, environment={})
        calibration = tmp_path / "calibration.json"
        write_config(path, text_to_fill(given), config, tuned, problem, calibration)
        again = load_config(path, environment={})
        for name, setting in tuned.plan.settings.items():
            assert again.slo.classes[name].settings == setting.section()
        assert (again.slo.rate, again.slo.calibration) == (4, str(calibration))
        assert again.slo.watch == config.slo.watch
        assert ("# full" in path.read_text(encoding="utf-8")) == ("# full" in text)


def test_a_search_that_cannot_be_kept_is_told(tmp_path: Path, recorded: Path) -> None:
    problem, space = problem_and_space(recorded)
    path = tmp_path / "study.db"
    go = partial(search, problem, space, path, seed=0, describes="this")

    def spoil(done: int, trials: int) -> None:
        if done == 1:
            with closing(sqlite3.connect(path)) as study:
                study.execute("DROP TABLE trial_values")

    with pytest.raises(RunError, match=r"cannot be kept .*trial_values.*the same command again"):
        go(trials=4, progress=spoil)


def test_a_file_that_is_no_study_is_refused(tmp_path: Path, recorded: Path) -> None:
    problem, space = problem_and_space(recorded)
    (tmp_path / "study.db").write_text("not a data base, but a text", encoding="utf-8")
    with pytest.raises(RunError, match="cannot be used as a study"):
        search(problem, space, tmp_path / "study.db", trials=4, seed=0, describes="this")


def test_a_promise_that_nothing_keeps_is_refused_with_the_part(
    tmp_path: Path, recorded: Path
) -> None:
    with pytest.raises(SloRefusedError) as refused:
        tune(tmp_path, recorded, p90=0.01, epsilon=0.02)
    assert "slo.classes.all.latency.p90 = 0.01 s" in str(refused.value)
    assert "above it" in str(refused.value)
    # And 40 queries to calibrate on are too few for any rule but the full budget.
    assert "no guarantee in class all but for the full budget" in str(refused.value)
    assert "take 114" in str(refused.value)
    assert not (tmp_path / "out" / "tuned.toml").exists()


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("weigh = 'mean'\n[slo]\nrate = 1\n[slo.classes.a]\nepsilon = 0.1", "weigh"),
        ("[slo]\nrate = 1\n[slo.classes.a]\nweight = 2", "epsilon is not set"),
        ("[slo]\n[slo.classes.a]\nepsilon = 0.1", "slo.rate is not set"),
        ("", "promises nothing"),
        ("[slo]\nrate = 1\nclasses = { a = { epsilon = 0.1 } }", "in braces or with dots"),
        ("[slo]\nrate = 1\n[slo.classes.a]\nepsilon = 0.1\nsettings = { wave = 2 }", "in braces"),
        ("[slo]\nrate = 1\nclasses.a.epsilon = 0.1\nclasses.a.delta = 0.2", "with dots"),
        (
            "[slo]\nrate = 1e6\n[slo.classes.a]\nepsilon = 0.1\ndeadline = 60",
            "would have 3e+08 queries, above 1,000,000",
        ),
        (
            "[slo]\nrate = 1\n[slo.classes.a]\neffort = 'low'\nepsilon = 0.1\nshare = 0.01\n"
            "[slo.classes.b]\nepsilon = 0.1",
            "gives it 4 of the 400 queries of a simulated run, too few to tell how long they take; "
            "give --arrivals 1010 or a larger share",
        ),
        (
            "[slo]\nrate = 1\n[slo.classes.a]\nepsilon = 0.1\ntokens_per_query = 3",
            "below one sample, which takes",
        ),
    ],
)
def test_what_cannot_be_tuned_is_named(
    tmp_path: Path, recorded: Path, extra: str, message: str
) -> None:
    config = tmp_path / "promise.toml"
    config.write_text(f"[algorithm]\nsamples = 8\n{extra}", encoding="utf-8")
    arguments = ["tune", "--config", config, "--traces", recorded / "trace.jsonl", "--engine-times",
                 recorded / "engine.json", "--out", tmp_path / "out"]  # fmt: skip
    result = CliRunner().invoke(app, [str(each) for each in arguments])
    assert isinstance(result.exception, ConfigError)
    assert message in str(result.exception)


def test_each_class_has_its_own_traces(tmp_path: Path, recorded: Path) -> None:
    ungraded = tmp_path / "ungraded.jsonl"
    with TraceWriter(ungraded) as file:
        for query in range(12):
            for sample in range(SAMPLES):
                file.write(TraceSample(f"u{query}", sample, 10, "1"))

    def classes(*traces: str, loss: str = "answer") -> dict[str, ClassTraffic]:
        rest = {"epsilon": 0.1, "loss": loss}
        hard = {"epsilon": 0.1, "effort": "high", "share": 2}
        config = Config.model_validate(
            {"algorithm": {"samples": SAMPLES}, "slo": {"classes": {"hard": hard, "rest": rest}}}
        )
        return classes_of(config, traces)

    shared = str(recorded / "trace.jsonl")
    found = classes(shared, f"rest={ungraded}")
    assert [len(each.questions) for each in found.values()] == [80, 12]
    assert found["hard"].share == 2
    both = classes(shared, f"rest={ungraded}", f"rest={shared}")
    assert len(both["rest"].questions) == 92
    assert f"{ungraded}/u3" in both["rest"].questions
    twice = [tmp_path / folder / "samples.jsonl" for folder in ("one", "two")]
    for seed, path in enumerate(twice):
        path.parent.mkdir()
        with TraceWriter(path) as file:
            for query in range(12):
                asked = f"{query} and {query * seed}?"
                for sample in range(SAMPLES):
                    file.write(TraceSample(f"q{query}", sample, 10, "1", prompt=asked))
    assert len(classes(shared, f"rest={twice[1]}")["rest"].questions) == 12
    with pytest.raises(DataError, match="query q0 of one trace asks what q0 of another asks"):
        classes(shared, *(f"rest={path}" for path in twice))
    with pytest.raises(ConfigError, match="class hard has none"):
        classes(f"rest={ungraded}")
    with pytest.raises(ConfigError, match="no class soft; there are hard, rest"):
        classes(f"soft={ungraded}")
    with pytest.raises(DataError, match="lacks the right answer"):
        classes(shared, f"rest={ungraded}", loss="accuracy")


def test_a_heavier_class_waits_less_and_the_others_more(recorded: Path) -> None:
    queries = collect_questions(read_traces(recorded / "trace.jsonl"))
    engine = Calibration.read(recorded / "engine.json")

    def medians(weight: float) -> tuple[float, float]:
        classes = {"one": ClassTraffic(queries, 1, weight), "rest": ClassTraffic(queries, 1)}
        load = LoadModel(engine, classes, parse_traffic("poisson"), aging=None, fit_memory=False,
                         ranked={}, counted=60, seed=0)  # fmt: skip
        settings = {name: Setting("never", SAMPLES, SAMPLES) for name in classes}
        plan = Plan(Platform("default", 4, False, 1), settings)
        found = load.latencies(plan, 2.5, repeats=[0])  # more than it can serve
        return found["one"].percentile(50), found["rest"].percentile(50)

    alike, heavy, light = medians(1.0), medians(100.0), medians(0.01)
    assert heavy[0] < 0.7 * alike[0]
    assert heavy[0] < heavy[1]
    assert light[0] > light[1]


def test_a_run_lasts_long_enough_for_a_queue_to_grow(recorded: Path) -> None:
    queries = collect_questions(read_traces(recorded / "trace.jsonl"))
    plan = Plan(Platform("default", 16, False, 1), {"all": Setting("fixed:1", SAMPLES, 1)})
    counts = []
    for lasting in (0.0, 20.0):
        load = LoadModel(Calibration.read(recorded / "engine.json"), {"all": ClassTraffic(queries, 1)},
                         parse_traffic("poisson"), aging=None, fit_memory=False, ranked={},
                         counted=20, lasting=lasting, seed=0)  # fmt: skip
        [run] = load.latencies(plan, 10, repeats=[0])["all"].runs
        counts.append(len(run))
    assert 5 < counts[0] < 40
    assert 150 < counts[1] < 250


def test_a_calibration_that_has_no_place_is_refused_before_it_is_made(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["calibrate", "--out", str(tmp_path / "none" / "engine.json")])
    assert isinstance(result.exception, ConfigError)
    assert "there is no folder" in str(result.exception)


def test_capacity_grows_with_the_load(tmp_path: Path, recorded: Path) -> None:
    config = tmp_path / "promise.toml"
    config.write_text(PROMISE.format(rate=5, epsilon=0.1, p90=1.5), encoding="utf-8")

    def ask(*more: str) -> dict[str, object]:
        arguments = ["capacity", "--config", config, "--traces", recorded / "trace.jsonl",
                     "--engine-times", recorded / "engine.json", "--arrivals", "20", "--repeats", "2",
                     "--json", *more]  # fmt: skip
        result = CliRunner().invoke(app, [str(each) for each in arguments])
        assert result.exit_code == 0, result.output
        found: dict[str, object] = json.loads(result.stdout)
        return found

    weighed = tmp_path / "weighed.toml"
    weighed.write_text(
        "[algorithm]\nsamples = 8\nweigh = 'mean'\n[slo.classes.a]\nlatency = { p90 = 2 }"
    )
    refused = CliRunner().invoke(
        app, ["capacity", "--config", str(weighed), "--traces", str(recorded / "trace.jsonl"),
              "--engine-times", str(recorded / "engine.json"), "--rate", "1"]
    )  # fmt: skip
    assert "algorithm.weigh = 'mean'" in str(refused.exception)

    few, many = ask("--rate", "3"), ask("--rate", "10", "--replicas", "1")
    assert few["replicas_needed"]["value"] < many["replicas_needed"]["value"]
    low, high = many["highest_rate"]["range"]
    assert low <= high
    assert 0 < many["highest_rate"]["value"] < 10
