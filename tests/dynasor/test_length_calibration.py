import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynasor.errors import DataError
from dynasor.ranking.examples import LengthExample
from dynasor.ranking.length_calibration import LengthCalibration


def sample(
    size: int, *, seed: int = 0, limit: float = math.inf
) -> tuple[np.ndarray, list[LengthExample]]:
    """Log tokens of mean 5 + score / 2 and deviation 0.7; those over the limit are cut there."""
    draw = np.random.default_rng(seed)
    scores = draw.normal(size=size)
    tokens = np.exp(5 + 0.5 * scores + 0.7 * draw.normal(size=size))
    rows = [
        LengthExample("p", float(min(t, limit)), str(k), cut=float(t > limit))
        for k, t in enumerate(tokens)
    ]
    return scores, rows


def test_it_finds_mean_spread_and_quantiles_of_a_known_law() -> None:
    fitted = LengthCalibration.fit(*sample(4_000))
    at = np.array([-1.0, 0.0, 1.0])
    mean, sd = fitted.expected(at)
    assert mean == pytest.approx(5 + 0.5 * at, abs=0.12)
    assert sd == pytest.approx(0.7, abs=0.12)
    assert fitted.quantile(at, 0.9) == pytest.approx(np.exp(5 + 0.5 * at + 1.2816 * 0.7), rel=0.25)


def test_few_examples_keep_the_order_of_neighbours_and_of_the_extremes() -> None:
    fitted = LengthCalibration.fit(*sample(250, seed=5))
    at = np.linspace(-2, 2, 41)
    mean, _ = fitted.expected(at)
    assert (np.diff(mean) > 0).all()
    assert mean == pytest.approx(5 + 0.5 * at, abs=0.3)


def test_a_bend_that_many_examples_show_is_kept() -> None:
    random = np.random.default_rng(6)
    scores = random.uniform(-3, 3, size=4000)
    tokens = np.exp(6 + np.maximum(scores, 0) + 0.3 * random.normal(size=4000))
    rows = [LengthExample("p", float(t), str(k)) for k, t in enumerate(tokens)]
    fitted = LengthCalibration.fit(scores, rows)
    assert fitted.expected([-2.0, 0.0, 2.0])[0] == pytest.approx([6, 6.1, 8], abs=0.15)


def test_half_of_new_answers_are_below_the_median_wherever_the_score() -> None:
    fitted = LengthCalibration.fit(*sample(4_000))
    scores, fresh = sample(4_000, seed=1)
    below = np.array([e.tokens for e in fresh]) < fitted.quantile(scores, 0.5)
    for third in np.array_split(np.argsort(scores), 3):
        assert below[third].mean() == pytest.approx(0.5, abs=0.06)


def test_cut_answers_count_as_longer_ones_and_not_as_they_are() -> None:
    whole, cut = (
        LengthCalibration.fit(*sample(4_000)),
        LengthCalibration.fit(*sample(4_000, limit=250)),
    )
    scores, rows = sample(4_000, limit=250)
    naive = LengthCalibration.fit(scores, [LengthExample("p", e.tokens, "c") for e in rows])
    wrong, right = naive.expected(1.0)[0], cut.expected(1.0)[0]
    assert right == pytest.approx(whole.expected(1.0)[0], abs=0.15)
    assert wrong < right - 0.2


def test_the_spread_of_several_answers_widens_the_law() -> None:
    scores, rows = sample(400)
    several = [LengthExample("p", e.tokens, "c", samples=8, spread=1.0) for e in rows]
    narrow, wide = LengthCalibration.fit(scores, rows), LengthCalibration.fit(scores, several)
    assert wide.expected(0.0)[1] > narrow.expected(0.0)[1] + 0.2


@given(
    st.lists(
        st.tuples(st.floats(-9, 9), st.integers(1, 10**6), st.booleans()), min_size=1, max_size=120
    )
)
@settings(max_examples=40, deadline=None)
def test_it_rises_with_the_score_and_the_level_whatever_it_saw(
    seen: list[tuple[float, int, bool]],
) -> None:
    rows = [LengthExample("p", float(t), "c", cut=float(c)) for _, t, c in seen]
    fitted = LengthCalibration.fit([score for score, _, _ in seen], rows)
    at = np.linspace(-10, 10, 41)
    mean, sd = fitted.expected(at)
    assert (np.diff(mean) >= -1e-9).all()
    assert (sd > 0).all()
    levels = [fitted.quantile(at, level) for level in (0.05, 0.5, 0.95)]
    assert all((np.diff(tokens) >= -1e-6 * tokens[1:]).all() for tokens in levels)
    assert (np.diff(np.stack(levels), axis=0) >= -1e-6).all()
    assert np.isfinite(np.stack([mean, sd, *levels])).all()
    assert LengthCalibration.from_json(json.loads(json.dumps(fitted.to_json()))) == fitted


def test_scores_that_are_all_the_same_give_one_law() -> None:
    _, rows = sample(200)
    fitted = LengthCalibration.fit(np.zeros(200), rows)
    assert len(fitted.scores) == 1
    assert fitted.expected([-5, 5])[0] == pytest.approx(5, abs=0.2)


@pytest.mark.parametrize(
    ("scores", "tokens", "says"),
    [
        ([1.0], [5.0, 6.0], "scores for 2"),
        ([np.nan], [5.0], "not a finite"),
        ([1.0], [0.0], "nothing"),
    ],
)
def test_what_cannot_be_fitted_is_refused(
    scores: list[float], tokens: list[float], says: str
) -> None:
    with pytest.raises(DataError, match=says):
        LengthCalibration.fit(scores, [LengthExample("p", t, "c") for t in tokens])


@pytest.mark.parametrize(
    "change",
    [
        {"scores": None},
        {"scores": [2.0, 1.0]},
        {"sd_log": [1.0, -1.0]},
        {"mean_log": [1.0]},
        {"quantile_log": [[1.0]]},
        {"levels": ["x"] * 25},
        {"mean_log": [1.0, float("nan")]},
    ],
)
def test_a_damaged_file_is_one_error_with_its_name(
    change: dict[str, object], tmp_path: Path
) -> None:
    fitted = LengthCalibration.fit(*sample(80))
    assert len(fitted.scores) == 2
    file = tmp_path / "calibration.json"
    fitted.save(file)
    assert LengthCalibration.load(file) == fitted
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(DataError, match=r"calibration.json.*train the ranker again"):
        LengthCalibration.load(file)
    file.write_text("{")
    with pytest.raises(DataError, match="cannot be read"):
        LengthCalibration.load(file)
