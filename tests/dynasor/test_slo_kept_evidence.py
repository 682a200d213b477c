"""What a class knows goes to a file and back; what is no such file is refused with one reason."""

import json

import pytest

from dynasor.errors import DataError
from dynasor.slo.kept_evidence import KeptEvidence
from dynasor.slo.rungs import FULL
from tests.dynasor.test_slo_class_watch import BOLD, LIKE, RULES, UNLIKE, bold, lose, serve, watch


def again(each, path, **config):
    """Another watch of the class, after the server has started anew."""
    KeptEvidence(classes={"all": each.kept("this")}).save(path)
    found = watch(**config)
    found.go_on(KeptEvidence.load(path).classes["all"])
    return found


def test_evidence_that_has_led_to_nothing_yet_is_kept(tmp_path):
    each = watch()
    for _ in range(20):
        serve(each, each.admit(), 1.0, 90, LIKE)
        serve(each, bold(each), 1.0, 60, BOLD)
        each.audited(each.admit(), differed=False)
    each.audited(each.admit(), differed=True)
    each.audited(each.admit(), differed=None)
    found = again(each, tmp_path / "e.json")
    before, after = each.status(), found.status()
    assert (after.seen, after.audited, after.bounds) == (40, before.audited, before.bounds)
    assert after.evidence == pytest.approx(before.evidence)
    assert (after.alarms, after.setting) == ([], before.setting)
    live = [[drift.live for drift in one.kept("this").drift] for one in (each, found)]
    assert live[0] == live[1]


def test_alarms_and_the_setting_that_they_led_to_are_kept(tmp_path):
    each = watch(fallback="safer")
    lose(each)
    found = again(each, tmp_path / "e.json", fallback="safer")
    assert found.setting.rule == RULES[1][0]
    assert found.alarms == each.alarms
    lose(each)
    last = again(each, tmp_path / "e.json", fallback="safer")
    assert (last.setting[:3], len(last.alarms)) == (each.setting[:3], 2)
    assert last.setting.rule == FULL
    for _ in range(50):
        serve(last, last.admit(), 1.0, 300, UNLIKE)
    assert len(last.alarms) == 2


def test_the_tokens_of_the_day_are_kept_for_the_day():
    each = watch({"tokens_per_day": 100})
    day = each.kept("this").day
    each.spent_before(day - 1, 1000)
    assert each.admit().refusal is None
    each.spent_before(day, 60)
    each.spend(40)
    assert each.admit().refusal.code == "day_budget"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "version"),
        ({"odd": 1}, "odd"),
        ({"classes": {"all": {}}}, "classes.all.about"),
        ({"classes": []}, "classes"),
    ],
)
def test_what_is_no_kept_evidence_is_refused(tmp_path, change, message):
    path = tmp_path / "e.json"
    values = json.loads(KeptEvidence(classes={"all": watch().kept("x")}).model_dump_json())
    path.write_text(json.dumps(values | change), encoding="utf-8")
    with pytest.raises(DataError, match=message):
        KeptEvidence.load(path)


@pytest.mark.parametrize(
    "drift",
    [
        {"live": [[1], [1], [1], []], "capital": [0, 0, 0, 0]},
        {"live": [[1], [1], [1]], "capital": [0, 0, 0, 0]},
        {"live": [[1], [1], [1], [1]], "capital": [0]},
        {"live": [["x"], [1], [1], [1]], "capital": [0, 0, 0, 0]},
        {"level": 8, "live": [[], [], [], []], "capital": [0, 0, 0, 0]},
    ],
)
def test_watches_that_cannot_be_are_refused(tmp_path, drift):
    path = tmp_path / "e.json"
    values = json.loads(KeptEvidence(classes={"all": watch().kept("x")}).model_dump_json())
    values["classes"]["all"]["drift"] = [{"level": 0} | drift]
    path.write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(DataError, match=r"classes\.all\.drift"):
        KeptEvidence.load(path)


@pytest.mark.parametrize("text", [b"", b"[]", b"\xff\xfe", b'{"version": 1, "classes": '])
def test_a_torn_or_foreign_file_is_refused_and_a_missing_one_is_missing(tmp_path, text):
    path = tmp_path / "e.json"
    path.write_bytes(text)
    with pytest.raises(DataError):
        KeptEvidence.load(path)
    with pytest.raises(FileNotFoundError):
        KeptEvidence.load(tmp_path / "none.json")


def test_a_place_that_there_is_not_is_refused():
    kept = watch().kept("this").model_copy(update={"place": 4})
    with pytest.raises(ValueError, match="there are 4 settings"):
        watch().go_on(kept)
