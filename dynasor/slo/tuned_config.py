"""What `dynasor tune` writes: the configuration with a reason beside each number; what was certified."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any

import numpy as np
import tomlkit
from tomlkit.exceptions import TOMLKitError
from tomlkit.items import InlineTable

from dynasor.config import NO_RANKING, Config
from dynasor.config_sources import merge
from dynasor.errors import ConfigError, DataError
from dynasor.slo.calibration_set import (
    COMPARED,
    CalibratedQuery,
    CalibrationSet,
    CertifiedSetting,
    ClassCalibration,
)
from dynasor.slo.guarantee import Tested
from dynasor.slo.prediction import Problem
from dynasor.slo.promise import QueryClass
from dynasor.slo.tables import OutcomeTables, Places
from dynasor.slo.tune import REPEATS, Tuned
from dynasor.whole_file import replace_text

_Section = MutableMapping[str, Any]

MARK = "# dynasor tune: "
"""What the lines begin with that are made anew each time."""


def calibration_set(tuned: Tuned, problem: Problem, model: str) -> CalibrationSet:
    """What was certified of each class, for the service.

    Args:
        tuned: the result.
        problem: with the recorded queries.
        model: of the engine whose step times were measured.
    """
    return CalibrationSet(
        model=model[:500],
        rate=problem.rate,
        classes={name: _class(tuned, problem, name) for name in problem.promises},
    )


def _class(tuned: Tuned, problem: Problem, name: str) -> ClassCalibration:
    promise, tables = problem.promises[name], problem.tables[name]
    assert promise.epsilon is not None, "checked before the search"
    certified = tuned.guarantees[name].certified
    setting = tuned.plan.settings[name]
    places = problem.splits[name].calibrate
    ended = tables.of([setting], places)
    losses = ended.losses(promise.loss)[0]
    return ClassCalibration(
        full_samples=problem.full_samples,
        loss=promise.loss,
        epsilon=promise.epsilon,
        guarantee=promise.guarantee,
        delta=promise.risk,
        certified=tuple(
            each.figures
            if each.setting == setting or tables.is_full(each.setting)
            else _with_ends(each, tables, places)
            for each in certified
        ),
        chosen=[each.setting for each in certified].index(setting),
        queries=tuple(
            CalibratedQuery(
                id=tables.queries[place].id[:500],
                certainty=float(ended.certainty[0, column]),
                agreement=float(ended.agreement[0, column]),
                samples=int(ended.samples[0, column]),
                tokens=int(ended.tokens[0, column]),
                sample_tokens=float(ended.sample_tokens[0, column]),
                differed=bool(ended.differed[0, column]),
                loss=float(losses[column]),
            )
            for column, place in enumerate(places.tolist())
        ),
    )


def _with_ends(tested: Tested, tables: OutcomeTables, places: Places) -> CertifiedSetting:
    """A setting that was not chosen, with how calibrated queries end under it."""
    some = np.random.default_rng(0).permutation(places)[:COMPARED]  # in no order, as they come
    ended = tables.of([tested.setting], some)
    columns = (ended.certainty, ended.agreement, ended.samples, ended.sample_tokens)
    rows = np.stack([column[0] for column in columns], axis=1).tolist()
    return tested.figures.model_copy(update={"ended": tuple(tuple(row) for row in rows)})


def text_to_fill(path: Path | None) -> str:
    """A user's configuration, in which `write_config` can put settings with reasons beside them.

    Args:
        path: of the file, which was read as a configuration before; None for none.

    Raises:
        ConfigError: if it is laid out so that they have no place.
    """
    if path is None:
        return ""
    text = path.read_text(encoding="utf-8")
    wanted = tomllib.loads(text)
    names = wanted.get("slo", {}).get("classes", {})
    sections = ("algorithm", "allocator", "engine", "scheduler")
    probe: dict[str, Any] = {section: {"tuned": 1} for section in sections}
    probe["slo"] = {"tuned": 1, "classes": {name: {"settings": {"tuned": 1}} for name in names}}
    merge(wanted, probe)
    try:
        document = tomlkit.parse(text)
        _fill(document, probe)
        kept = tomllib.loads(tomlkit.dumps(document)) == wanted
    except (TOMLKitError, tomllib.TOMLDecodeError, ValueError):
        kept = False
    if not kept:
        raise ConfigError(
            f"{path}: a section in braces or with dots in its keys has no room for the reasons that "
            "`dynasor tune` writes beside settings; begin each with its name, such as [slo.classes.all]"
        )
    return text


def _fill(section: _Section, values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, Mapping):
            _fill(_table(section, key), value)
        else:
            _put(section, key, value, "why")


def write_config(
    path: Path,
    text: str,
    config: Config,
    tuned: Tuned,
    problem: Problem,
    calibration: Path,
) -> None:
    """The given file with the tuned settings, each with a comment that says where it comes from.

    Args:
        path: to write.
        text: what the user wrote, see `text_to_fill`; its other settings and comments are kept.
        config: all settings, those of the command line too.
        tuned: the result.
        problem: what was tuned.
        calibration: file of the calibration set.

    Raises:
        DataError: if it cannot be written.
    """
    kept = [line for line in text.splitlines() if not line.startswith(MARK)]
    document = tomlkit.parse("\n".join(kept).strip() + "\n")
    platform = tuned.plan.platform
    slo = _table(document, "slo")
    _put(slo, "rate", problem.rate, "queries a second for which all of this is predicted")
    beside = calibration.name if calibration.parent == path.parent else str(calibration.resolve())
    _put(slo, "calibration", beside, "what was certified, on which queries; beside this file")
    classes = _table(slo, "classes")
    for name, promise in problem.promises.items():
        section = _table(_table(classes, name), "settings")
        _put_settings(section, tuned, name, promise, problem.full_samples)
    if len(problem.promises) == 1:
        # What knows no classes, such as `dynasor bench`, is to do the same.
        setting = tuned.plan.settings[next(iter(problem.promises))]
        why = "of the only class of [slo], for what knows no classes"
        full = f"; the full budget is {problem.full_samples}"
        _put(_table(document, "algorithm"), "samples", setting.samples, why + full)
        _put(_table(document, "allocator"), "rule", setting.rule, why)
        _put(_table(document, "allocator"), "wave", setting.wave, why)
    _put(
        _table(document, "engine"),
        "max_running",
        platform.places,
        "requests in the batch at once, of those that the engine was calibrated with",
    )
    _put(_table(document, "scheduler"), "policy", platform.policy, "by the search")
    ranking = config.ranking.model
    if ranking != NO_RANKING:
        _put(
            _table(document, "ranking"),
            "model",
            ranking if platform.ranked else NO_RANKING,
            "by the search" if platform.ranked else f"{ranking} did not pay",
        )
    header = [
        f"{MARK}{platform.replicas} engine"
        + "s" * (platform.replicas > 1)
        + " like the calibrated one",
        f"{MARK}latencies are of {len(REPEATS)} simulated runs at slo.rate; 95% of further runs in [ ]",
    ]
    # A blank line before each section, but where its comment stands there.
    text = re.sub(r"(?m)^([^#\[\n].*)\n(?=\[)", r"\1\n\n", tomlkit.dumps(document))
    try:
        replace_text(path, "\n".join(header) + "\n" + text)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror}); check the path") from None


def _put_settings(
    section: _Section, tuned: Tuned, name: str, promise: QueryClass, full_samples: int
) -> None:
    setting, chosen = tuned.plan.settings[name], tuned.chosen(name)
    expected, figures = tuned.expected[name], chosen.figures
    queries = tuned.guarantees[name].queries
    _put(
        section,
        "rule",
        setting.rule,
        f"loss {100 * figures.loss:.2g} points on {queries} queries, at most "
        f"{100 * figures.bound:.2g} at {100 * (1 - promise.risk):g}% confidence; "
        f"{expected.tokens:,.0f} tokens a query"
        + ("" if promise.deadline is None else "; answers that the deadline cuts are not covered"),
    )
    _put(section, "samples", setting.samples, f"the loss is against {full_samples}")
    latency = expected.latency
    seconds = [
        f"p{percent:g} {latency.percentile(percent):.3g} s"
        + ("" if interval is None else f" [{interval[0]:.3g}, {interval[1]:.3g}]")
        for percent, _ in promise.targets or [(90.0, 0.0)]
        for interval in [latency.interval(percent)]
    ]
    _put(section, "wave", setting.wave, ", ".join(seconds))


def _table(parent: _Section, name: str) -> _Section:
    """A section, made where there is none.

    Raises:
        ValueError: if it is written in braces.
    """
    if name not in parent:
        parent[name] = tomlkit.table(is_super_table=name == "classes")
    found = parent[name]
    if isinstance(found, InlineTable):
        raise ValueError(f"{name} has no room for comments")
    assert isinstance(found, MutableMapping), "the configuration was read before"
    return found


def _put(section: _Section, key: str, value: Any, why: str) -> None:
    """A setting with its reason, in the place of an older one."""
    item = tomlkit.item(value)
    item.comment(why)
    section[key] = item
