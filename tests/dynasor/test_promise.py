"""`[slo]`: what contradicts what, which class a query is of, and the file that the service reads."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynasor.config import load_config
from dynasor.errors import ConfigError, DataError
from dynasor.slo.calibration_set import (
    CalibratedQuery,
    CalibrationSet,
    CertifiedSetting,
    ClassCalibration,
)
from dynasor.slo.promise import ClassSettings, QueryClass, SloConfig
from dynasor.slo.tables import split_queries
from dynasor.slo.watch_config import WatchConfig


def load(tmp_path: Path, text: str) -> SloConfig:
    path = tmp_path / "promise.toml"
    path.write_text(text, encoding="utf-8")
    return load_config(path, environment={}).slo


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epsilon = 0.0", "slo.classes.a: epsilon = 0: no number of queries can certify"),
        (
            "epsilon = 1.0",
            "slo.classes.a: epsilon = 1: all answers may differ, which promises nothing",
        ),
        ("[slo.classes.'two words']", "'two words': must be named by 1 to 64 letters, digits"),
        ("delta = 0.1", "delta = 0.1 without epsilon"),
        ("epsilon = 0.1\ndelta = 0.1\nguarantee = 'mean'", "leave one of the two out"),
        ("deadline = 10\nlatency = { p90 = 20 }", "p90 = 20 s is above deadline = 10 s"),
        ("latency = { p90 = 5, p50 = 10 }", "p90 = 5 s is below p50 = 10 s"),
        ("deadline = 1e4", "slo.classes.a.deadline = 10000 s is above server.max_seconds = 600"),
        ("tokens_per_day = 5\ntokens_per_query = 10", "not one query a day"),
        ("latency = { q90 = 1 }", "'q90': a latency target is named by its percentile"),
        ("latency = { p90 = 0 }", "p90 = 0.0: must be above 0 seconds"),
        ("epsilom = 2", "slo.classes.a.epsilom: no such setting; there are model, effort,"),
        ("epsilon = 2", "slo.classes.a.epsilon = 2: input should be less than or equal to 1"),
        ("settings = { rule = 'x' }", "rule 'x' is unknown"),
        ("loss = 'all'", "slo.classes.a.loss = 'all': input should be 'answer' or 'accuracy'"),
        ("[slo.classes.b]\neffort = 'high'", "classes.b: class a stands before it"),
    ],
)
def test_what_contradicts_what_is_named_in_one_error(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(ConfigError) as error:
        load(tmp_path, f"[slo.classes.a]\n{text}\n")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


WRONG = {
    "slo": {"rate": "0", "calibration": "5", "audit": "1.5", "classes": "5", "watch": "[]"},
    "slo.watch": {
        "risk": "0", "period": "99", "fallback": "'bold'", "audits": "0", "file": "7",
        "control": "'maybe'",
    },
    "slo.classes.a": {
        "model": "7", "effort": "'max'", "metadata": "{ tier = 7 }", "loss": "'none'",
        "epsilon": "nan", "guarantee": "'sure'", "delta": "1", "latency": "{ p90 = 'soon' }",
        "deadline": "0", "tokens_per_query": "0.5", "tokens_per_day": "-1", "share": "0",
        "weight": "inf", "settings": "'default'",
    },
    "slo.classes.a.settings": {"rule": "'luck'", "samples": "0", "wave": "2000"},
}  # fmt: skip


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [(section, key, value) for section, keys in WRONG.items() for key, value in keys.items()],
)
def test_each_key_with_a_wrong_value_is_named_with_it(
    tmp_path: Path, section: str, key: str, value: str
) -> None:
    with pytest.raises(ConfigError) as error:
        load(tmp_path, f"[{section}]\n{key} = {value}\n")
    message = str(error.value)
    assert message.startswith(f"{section}.{key}")
    assert "\n" not in message
    plain = value.strip("{}'[] ").rpartition("= ")[2].strip("'")
    assert plain in message
    assert any(words in message for words in ("should be", "must be", "known rules")), message
    assert "instance of" not in message


def test_each_key_is_among_those_that_are_tried() -> None:
    sections = (SloConfig, WatchConfig, QueryClass, ClassSettings)
    assert [set(keys) for keys in WRONG.values()] == [set(each.model_fields) for each in sections]


def test_a_query_is_of_the_first_class_that_holds_it(tmp_path: Path) -> None:
    slo = load(
        tmp_path,
        "[slo.classes.gold]\nmetadata = { tier = 'gold' }\n"
        "[slo.classes.hard]\neffort = 'high'\nmodel = 'm'\n"
        "[slo.classes.rest]\nlatency = { p99 = 9, p50 = 3 }\n",
    )

    def of(model: str, effort: str | None, **metadata: str) -> str | None:
        return slo.class_of(model=model, effort=effort, metadata=metadata)

    assert of("m", "high", tier="gold", more="x") == "gold"
    assert of("m", "high", tier="iron") == "hard"
    assert of("n", "high") == of("m", None) == "rest"
    assert slo.classes["rest"].targets == [(50.0, 3.0), (99.0, 9.0)]
    only = SloConfig(classes={"hard": QueryClass(effort="high")})
    assert only.class_of(model="m", effort="low", metadata={}) is None


@given(st.integers(3, 400), st.integers(0, 5))
def test_queries_are_split_in_three(count: int, seed: int) -> None:
    split = split_queries(count, seed)
    together = sorted([*split.search, *split.calibrate, *split.held])
    assert together == list(range(count))
    assert all(len(part) for part in split)


def kept() -> CalibrationSet:
    figures = CertifiedSetting(
        settings=ClassSettings(rule="default", samples=16, wave=2),
        loss=-0.01, bound=0.02, p_value=0.05, tokens=812.5, samples=4.5,
    )  # fmt: skip
    query = CalibratedQuery(
        id="q", certainty=0.5, agreement=0.75, samples=4, tokens=100, sample_tokens=25.0,
        differed=False, loss=0.0,
    )  # fmt: skip
    bold = figures.model_copy(update={"ended": ((0.5, 1.0, 3.0, 25.5), (1.0, 1.0, 2, 20))})
    one = ClassCalibration(
        full_samples=16, loss="accuracy", epsilon=0.02, guarantee="confidence", delta=0.1,
        certified=(figures, bold), chosen=0, queries=(query, query),
    )  # fmt: skip
    return CalibrationSet(model="m", rate=3.0, classes={"all": one})


def test_a_calibration_set_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    kept().save(path)
    assert CalibrationSet.load(path) == kept()
    known = CalibrationSet.load(path).classes["all"]
    assert [len(known.reference(place)) for place in (0, 1)] == [2, 2]
    assert known.reference(1)[0].sample_tokens == 25.5
    assert [each.name for each in tmp_path.iterdir()] == ["calibration.json"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "version"),
        ({"odd": 1}, "odd"),
        ({"classes": {}}, "classes"),
        ({"rate": 0}, "rate"),
        ({"classes": {"all": {"chosen": 2}}}, "there are 2 settings"),
        ({"classes": {"all": {"epsilon": 0}}}, "classes.all.epsilon"),
        ({"classes": {"all": {"queries": []}}}, "classes.all.queries"),
    ],
)
def test_a_broken_calibration_set_is_refused(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    path = tmp_path / "calibration.json"
    values = json.loads(kept().model_dump_json())
    for key, value in change.items():
        if isinstance(value, dict) and value:
            values["classes"]["all"] |= value["all"]
        else:
            values[key] = value
    path.write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(DataError) as error:
        CalibrationSet.load(path)
    assert message in str(error.value)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("text", ["", "[]", "{", "\x00", '{"model": NaN}'])
def test_what_is_no_calibration_set_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "calibration.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError):
        CalibrationSet.load(path)
    with pytest.raises(DataError, match="dynasor tune"):
        CalibrationSet.load(tmp_path / "none.json")
