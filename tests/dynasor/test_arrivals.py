"""Open-loop traffic."""

import numpy as np
import pytest

from dynasor.bench.arrivals import arrival_times, parse_traffic, plan_arrivals
from dynasor.errors import ConfigError, DataError
from dynasor.suites import Query, Suite

RATE, DURATION = 20.0, 2000.0
SUITE = Suite("s", tuple(Query(f"q{i}", "?", "1", {"level": i % 3}) for i in range(30)), "boxed")


def gaps(text, seed=0):
    return np.diff(arrival_times(parse_traffic(text), RATE, DURATION, (seed,)))


@pytest.mark.parametrize(("text", "cv"), [("poisson", 1.0), ("gamma:0.5", 0.5), ("gamma:3", 3.0)])
def test_gaps_have_the_rate_and_the_coefficient_of_variation(text, cv):
    found = gaps(text)
    error = cv / len(found) ** 0.5
    assert found.mean() == pytest.approx(1 / RATE, rel=5 * error)
    assert found.std() / found.mean() == pytest.approx(cv, rel=0.1)


def test_poisson_counts_vary_as_much_as_their_mean():
    times = np.array(arrival_times(parse_traffic("poisson"), RATE, DURATION, (1,)))
    counts = np.bincount(times.astype(int), minlength=int(DURATION))
    assert counts.var() / counts.mean() == pytest.approx(1, abs=0.15)


def test_same_seed_same_times_other_seed_other_times():
    assert (gaps("gamma:2", 3) == gaps("gamma:2", 3)).all()
    assert gaps("gamma:2", 3)[0] != gaps("gamma:2", 4)[0]


def test_times_are_ascending_and_within_the_run():
    times = arrival_times(parse_traffic("gamma:4"), 3.0, 50.0, (0,))
    assert times == sorted(times)
    assert times[0] >= 0
    assert times[-1] < 50


def test_a_recording_keeps_its_pattern_at_another_rate(tmp_path):
    file = tmp_path / "times.txt"
    file.write_text("10\n11\n\n14\n")  # gaps of 1 and 3
    times = arrival_times(parse_traffic(f"trace:{file}"), 1.0, 100.0, (0,))
    found = np.diff(times)
    assert set(found.round(9)) == {0.5, 1.5}
    assert (found[:-1] != found[1:]).all()
    assert len(times) == pytest.approx(100, abs=2)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1\n2\nsoon\n", "line 3: 'soon'"),
        ("2\n1\n", "line 2: '1'"),
        ("nan\n1\n", "line 1"),
        ("5\n", "two different times"),
        ("5\n5\n", "two different times"),
    ],
)
def test_a_damaged_recording_is_named(tmp_path, content, message):
    file = tmp_path / "times.txt"
    file.write_text(content)
    with pytest.raises(DataError, match=message):
        parse_traffic(f"trace:{file}")


def test_a_missing_recording_is_named(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        parse_traffic(f"trace:{tmp_path / 'none'}")


@pytest.mark.parametrize("text", ["gamma", "gamma:0", "gamma:-1", "gamma:x", "uniform", "trace:"])
def test_unknown_traffic_is_refused(text):
    with pytest.raises(ConfigError, match=f"--traffic {text}"):
        parse_traffic(text)


def test_each_question_comes_once_before_any_comes_again():
    arrivals = plan_arrivals(SUITE, parse_traffic("poisson"), rate=2, duration=60, seed=(5,))
    questions = [arrival.question for arrival in arrivals]
    assert len(questions) > 60
    assert len(set(questions[:30])) == len(set(questions[30:60])) == 30
    assert questions[:30] != questions[30:60]
    assert len({arrival.id for arrival in arrivals}) == len(arrivals)


def test_chats_have_their_share_and_their_class():
    arrivals = plan_arrivals(
        SUITE, parse_traffic("poisson"), rate=20, duration=200, chats=0.3, seed=(1,)
    )
    chats = [arrival for arrival in arrivals if arrival.kind == "chat"]
    assert len(chats) / len(arrivals) == pytest.approx(0.3, abs=0.03)
    assert {arrival.group for arrival in chats} == {"chat"}
    queries = {arrival.group for arrival in arrivals if arrival.kind == "query"}
    assert queries == {"level 0", "level 1", "level 2"}
