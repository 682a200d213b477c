"""A class by hand: what each alarm does, and what is no evidence."""

from dataclasses import replace
from random import Random

import pytest

from dynasor.slo.calibration_set import CalibratedQuery, CertifiedSetting, ClassCalibration
from dynasor.slo.class_watch import ClassWatch
from dynasor.slo.load_control import Choice, Pace
from dynasor.slo.promise import ClassSettings, QueryClass
from dynasor.slo.rungs import FULL, Rung
from dynasor.slo.traits import Traits
from dynasor.slo.watch_config import WatchConfig

RULES = (
    (FULL, 300.0),
    ("certaindex:1,min=4", 120.0),
    ("certaindex:0.9,min=3", 90.0),
    ("fixed:2", 60.0),
)
LIKE, UNLIKE = Traits(1.0, 1.0, 3, 30.0), Traits(0.2, 0.3, 8, 90.0)
BOLD = Traits(1.0, 1.0, 2, 30.0)
FULL_BUDGET = Rung(FULL, 16, 1)


def calibration(waves, queries, chosen=2):
    certified = tuple(
        CertifiedSetting(
            settings=ClassSettings(rule=rule, samples=8, wave=waves[place]),
            loss=0.0,
            bound=0.01,
            p_value=0.01,
            tokens=tokens,
            samples=tokens / 30,
            ended=(LIKE,) * 100 if place == 1 else (BOLD,) * 100 if place == 3 else (),
        )
        for place, (rule, tokens) in enumerate(RULES)
    )
    calibrated = tuple(
        CalibratedQuery(
            id=str(number), certainty=each.certainty, agreement=each.agreement,
            samples=int(each.samples), tokens=90, sample_tokens=each.sample_tokens,
            differed=False, loss=0.0,
        )
        for number, each in enumerate(queries)
    )  # fmt: skip
    return ClassCalibration(
        full_samples=8,
        loss="answer",
        epsilon=0.02,
        guarantee="confidence",
        delta=0.1,
        certified=certified,
        chosen=chosen,
        queries=calibrated,
    )


def watch(
    promised=None,
    base=None,
    calibrated=True,
    audit=1.0,
    waves=(1, 4, 4, 4),
    queries=(LIKE,) * 100,
    **config,
):
    return ClassWatch(
        "all",
        QueryClass(**{"epsilon": 0.02, **(promised or {})}),
        base,
        FULL_BUDGET,
        calibration(waves, queries) if calibrated else None,
        config=WatchConfig(**config),
        audit=audit,
        planned=None,
        pace=Pace(lambda: 0.0),
        random=Random(0),
    )


def serve(each, admission, seconds, tokens, traits, **how):
    """One query, from its beginning to its end, before the next one begins."""
    each.begun(admission)
    each.ended(admission, seconds, tokens, traits, **how)


def lose(each, most=100):
    """Audits whose answer differed, until the setting changes."""
    before = each.setting
    for number in range(most):
        each.audited(each.admit(), differed=True)
        if each.setting != before:
            return number + 1
    return None


def test_like_queries_change_nothing_and_unlike_ones_bring_the_full_budget_with_the_same_wave():
    each = watch()
    for _ in range(50):
        serve(each, each.admit(), 1.0, 90, LIKE)
    assert not each.alarms
    assert each.status().seen == 50
    for _ in range(50):
        serve(each, each.admit(), 1.0, 90, UNLIKE)
    assert len(each.alarms) == 1  # what ended after it belongs to the old round, or is not compared
    assert each.setting[:3] == (FULL, 8, 4)
    assert each.status().evidence == {}
    assert not each.admit().audit  # nothing can be lost


def bold(each):
    """A query that came under overload."""
    return replace(each.admit(), choice=Choice(1, None), base=False, audit=False)


def test_queries_under_a_bolder_setting_are_compared_with_the_calibrated_ones_under_it():
    each = watch()
    for _ in range(100):
        serve(each, each.admit(), 1.0, 90, LIKE)
        serve(each, bold(each), 1.0, 60, BOLD)
    assert not each.alarms
    assert each.status().seen == 200
    needed = 0
    while not each.alarms:
        serve(each, bold(each), 1.0, 60, UNLIKE)
        needed += 1
    assert needed < 60
    assert each.alarms[0].endswith(f"after {100 + needed} queries under fixed:2, 8 samples, wave 4")


def test_losses_under_bolder_settings_count_as_well():
    each = watch()
    needed = 0
    while not each.alarms:
        each.audited(each.admit(), differed=False)
        each.audited(bold(each), differed=True)
        needed += 1
    assert needed < 20
    assert each.alarms[0].startswith("loss: at least")


def test_a_safer_setting_is_watched_for_drift_as_well():
    each = watch(fallback="safer")
    while each.setting.rule == RULES[2][0]:
        serve(each, each.admit(), 1.0, 90, UNLIKE)
    assert each.setting.rule == RULES[1][0]
    for _ in range(50):
        serve(each, each.admit(), 1.0, 90, LIKE)
    assert len(each.alarms) == 1
    while len(each.alarms) == 1:
        serve(each, each.admit(), 1.0, 90, UNLIKE)
    assert each.setting.rule == FULL


def test_what_a_class_is_told_of_its_recent_queries():
    each = watch({"latency": {"p90": 2.0}, "deadline": 5.0, "tokens_per_query": 100})
    serve(each, each.admit(), 1.0, 80, LIKE)
    serve(each, each.admit(), 5.1, 40, None, at_deadline=True)
    status = each.status()
    assert (status.attained, status.at_deadline, status.tokens) == (0.5, 0.5, 60)
    assert (status.tokens_promised, status.planned) == (100, None)
    assert status.rate == 2.0


def test_fewer_samples_without_a_stop_rule_are_not_the_full_budget():
    each = watch(base=Rung(FULL, 4, 1), calibrated=False)
    assert each.admit().audit
    assert lose(each)
    assert each.setting[:2] == (FULL, 16)
    assert not each.admit().audit


def test_queries_that_no_rule_ended_are_no_evidence():
    each = watch()
    for _ in range(100):
        serve(each, each.admit(), 1.0, 90, None)
    assert each.status().seen == 0


def test_step_by_step_to_safer_settings_with_less_risk_each_time():
    each = watch(fallback="safer")
    first = lose(each)
    assert each.setting.rule == RULES[1][0]
    second = lose(each)
    assert each.setting.rule == FULL
    assert not each.admit().audit
    assert first <= second
    assert each.alarms[0].startswith("loss: at least")


def test_a_safer_setting_with_a_narrower_wave_would_be_slower_and_is_passed_over():
    each = watch(fallback="safer", waves=(1, 2, 4, 4))
    lose(each)
    assert each.setting[:3] == (FULL, 8, 4)


def test_easy_queries_that_end_first_are_no_drift():
    hard, held = Traits(0.4, 0.4, 8, 60.0), []
    each = watch(queries=[LIKE, LIKE, hard] * 30)
    for number in range(300):
        admission = each.admit()
        each.begun(admission)
        if number % 3 == 2:
            held.append(admission)  # the hard ones end when the busy hour is over
        else:
            each.ended(admission, 1.0, 90, LIKE)
    assert not each.alarms
    assert each.status().seen == 2  # nothing after the first hard one is known to be like others
    for admission in held:
        each.ended(admission, 60.0, 480, hard)
    assert each.status().seen == 300
    assert not each.alarms


def test_queries_that_are_left_hold_nobody_up():
    each = watch()
    gone, fast = each.admit(), each.admit()
    for admission in (gone, fast):
        each.begun(admission)
    each.ended(fast, 1.0, 90, LIKE)
    assert each.status().seen == 0
    each.left(gone)
    assert each.status().seen == 1


def test_audits_of_a_setting_that_no_longer_serves_do_not_count():
    each = watch()
    old = each.admit()
    lose(each)
    for _ in range(100):
        each.audited(old, differed=True)
        serve(each, old, 1.0, 90, UNLIKE)
    assert len(each.alarms) == 1
    assert each.status().audited == {"differed": 0, "same": 0, "dropped": 0}


def test_dropped_audits_raise_no_alarm():
    each = watch()
    for _ in range(1000):
        each.audited(each.admit(), differed=None)
    assert not each.alarms
    assert each.status().bounds == (0.0, 1.0)


def test_other_answers_are_no_proof_that_accuracy_was_lost():
    each = watch({"loss": "accuracy"})
    assert lose(each) is None
    assert not each.alarms
    assert each.status().bounds[0] > 0.9


def test_without_a_calibration_audits_alone_watch_over_a_setting():
    each = watch(base=Rung("fixed:2", 16, 2), calibrated=False)
    assert each.admit().setting == ("fixed:2", 16, 2, None)
    assert lose(each)
    assert each.setting == (FULL, 16, 2, None)


def test_a_share_is_audited():
    each = watch(audit=0.1)
    picked = sum(each.admit().audit for _ in range(1000))
    assert 60 < picked < 150


def test_a_certified_setting_may_be_named_and_no_other():
    named = watch(base=Rung(RULES[1][0], 8, 4))
    assert named.setting.work == RULES[1][1]
    assert set(named.status().evidence.values()) == {0.0}  # watched as the chosen one would be
    with pytest.raises(ValueError, match="not among the settings"):
        watch(base=Rung("fixed:3", 8, 1))
