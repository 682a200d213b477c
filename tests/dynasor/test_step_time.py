"""Step times: fitted to measured steps, and summed in closed form."""

import random

import pytest
from hypothesis import given, strategies

from dynasor.engines.calibration import Calibration
from dynasor.engines.step_time import Step, StepTime
from dynasor.errors import DataError

TRUE = StepTime(0.01, 2e-4, 5e-5, 1e-7, 1e-4)


def measured(count, noise=0.0, held_up=0.0):
    """Steps of the true function; a share of them held up by the operating system."""
    draw = random.Random(1)
    for _ in range(count):
        decoding, context = draw.randint(0, 64), draw.randint(100, 50_000)
        prefill = draw.choice([0, 0, 0, draw.randint(1, 2000)])
        logprobs = draw.choice([0, decoding])
        exact = TRUE.step(decoding, prefill, context) + TRUE.per_logprob * logprobs
        seconds = exact * draw.gauss(1, noise)
        slow = draw.uniform(3, 30) if draw.random() < held_up else 1
        yield Step(seconds * slow, decoding, prefill, context, logprobs)


TERMS = ("base", "per_request", "per_prefill_token", "per_context_token", "per_logprob")


def test_the_fit_finds_the_terms():
    fit = StepTime.fit(list(measured(200)))
    for name in TERMS:
        assert getattr(fit, name) == pytest.approx(getattr(TRUE, name), rel=1e-6)
    assert fit.error == pytest.approx(0, abs=1e-9)


def test_noise_is_measured_and_steps_that_were_held_up_do_not_count():
    fit = StepTime.fit(list(measured(3000, noise=0.05, held_up=0.1)))
    for name in TERMS:
        assert getattr(fit, name) == pytest.approx(getattr(TRUE, name), rel=0.1)
    assert 0.02 < fit.error < 0.06  # the median of a normal error is 0.67 standard deviations


def test_small_batches_may_cost_more_a_request():
    true = StepTime(0.004, 1e-4, early=((2, 9e-4), (8, 1.5e-4)))
    steps = [Step(true.step(n, 0, 0), n, 0, 0) for n in range(1, 65)]
    fit = StepTime.fit(steps)
    assert dict(fit.early) == pytest.approx(dict(true.early), rel=1e-4)
    for n in (1, 2, 5, 8, 20, 64):
        assert fit.batch(n) == pytest.approx(true.batch(n), rel=1e-4)
        assert fit.decode(3, n, 0) == pytest.approx(3 * true.batch(n), rel=1e-4)


def test_no_term_is_negative():
    steps = [Step(0.02 - 1e-4 * n, n, 0, 0) for n in range(1, 60)]  # quicker the larger
    assert StepTime.fit(steps).per_request == 0


def test_log_probabilities_cost_what_the_requests_that_want_them_add():
    charged = TRUE.with_logprobs()
    assert charged.step(10, 0, 0) == pytest.approx(TRUE.step(10, 0, 0) + 10 * TRUE.per_logprob)
    assert charged.with_logprobs() == charged, "charged once"


def test_too_few_steps_are_refused():
    with pytest.raises(DataError, match="9 measured steps: at least 10"):
        StepTime.fit(list(measured(9)))


@given(strategies.integers(1, 200), strategies.integers(1, 100), strategies.integers(1, 100_000))
def test_a_run_of_steps_takes_the_sum_of_its_steps(steps, decoding, context):
    one_by_one = sum(
        TRUE.step(decoding, 0, context + decoding * (done + 1)) for done in range(steps)
    )
    assert TRUE.decode(steps, decoding, context) == pytest.approx(one_by_one)


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({"base": -1.0}, "base must be 0 or more seconds, not -1"),
        ({"base": 1.0, "per_context_token": float("nan")}, "per_context_token must be 0 or more"),
        ({"base": 0.0}, "decoding takes no time"),
        (
            {"base": 1.0, "early": ((0, 1.0),)},
            "1 or more requests and 0 or more seconds, not 0 and",
        ),
        ({"base": 1.0, "early": ((2, -1.0),)}, "0 or more seconds, not 2 and -1"),
    ],
)
def test_wrong_terms_are_refused(terms, message):
    with pytest.raises(ValueError, match=message):
        StepTime(**terms)


def calibration():
    return Calibration("model", "machine", TRUE, 100, 0.002, 64, 2048, 1000, 32)


def test_a_calibration_is_read_as_it_was_written(tmp_path):
    calibration().write(tmp_path / "found.json")
    assert Calibration.read(tmp_path / "found.json") == calibration()
    replica = calibration().replica()
    assert (replica.max_running, replica.kv_blocks, replica.block_size) == (64, 1000, 32)
    assert replica.step_time == TRUE


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (
            '"kv_blocks": 1000',
            '"kv_blocks": 0',
            "kv_blocks must be a whole number of 1 to .*, not 0",
        ),
        ('"steps": 100', '"steps": "x"', "steps must be a whole number of 1 to .*, not 'x'"),
        ('"model": "model"', '"model": 3', "model must be a text, not 3"),
        ('"base": 0.01', '"base": -2', "step_time: base must be 0 or more seconds, not -2"),
        ('"base": 0.01', '"base": "a"', "step_time.base must be a number of seconds, not 'a'"),
        ('"per_request": 0.002', '"other": 1', "lacks per_request; must be an object with model, "),
        ('"steps": 100', '"steps": 100, "other": 1', "knows no other; must be an object with"),
        ('"per_request": 0.002', '"per_request": Infinity', "per_request must be a number of 0 to"),
        ('"per_request": 0.002', '"per_request": NaN', "per_request must be a number of 0 to"),
        ('"base": 0.01', f'"base": 1{400 * "0"}', "step_time: .* too large"),
        (
            '"early": []',
            '"early": 3',
            "step_time.early must be a list of .requests, seconds., not 3",
        ),
        ('"early": []', '"early": [[2, "a"]]', "step_time.early must be a list"),
        ("{", "[", "no calibration"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path, before, after, message):
    path = tmp_path / "found.json"
    calibration().write(path)
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))
    with pytest.raises(DataError, match=message):
        Calibration.read(path)
