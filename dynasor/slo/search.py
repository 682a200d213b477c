"""The search for promising plans: multi-objective, in a study on disk that can be gone on with.

Three objectives, all to be small: output tokens a query, the 90th percentile of latency, and the loss
against the full budget, each as a mean over the classes by their traffic and weight; with a range of
replicas, their number is the fourth. What is promised are constraints. The search looks at
its own part of the queries only, so nothing that it finds spoils the guarantee.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dynasor.errors import MissingExtra, RunError
from dynasor.slo.outcomes import Setting
from dynasor.slo.prediction import Problem, Shortfall
from dynasor.slo.space import FULL, Plan, Platform, Space

if TYPE_CHECKING:
    import optuna

STUDY = "dynasor-tune"


class Tried(NamedTuple):
    """A plan that the search tried, and what its part of the queries says of it.

    Attributes:
        plan: it.
        tokens: output tokens a query.
        latency: 90th percentile, seconds.
        loss: against the full budget.
        kept: whether the promises of latency and tokens are kept.
    """

    plan: Plan
    tokens: float
    latency: float
    loss: float
    kept: bool


def search(
    problem: Problem,
    space: Space,
    path: Path,
    *,
    trials: int,
    seed: int,
    describes: str,
    progress: Callable[[int, int], None] | None = None,
) -> list[Tried]:
    """Try plans until the study holds so many; what it already holds is not tried again.

    Args:
        problem: what is to be tuned.
        space: what may be tried.
        path: SQLite file of the study; made where there is none.
        trials: in all.
        seed: of the search.
        describes: what makes two studies the same; another one in the file is an error.
        progress: called with (trials done, trials in all).

    Raises:
        MissingExtra: if optuna is not installed.
        RunError: if the file holds another study, or is none, or cannot be written.
    """
    study = _open(path, seed, describes, len(space.replicas) > 1)
    from optuna.exceptions import StorageInternalError
    from optuna.trial import TrialState

    known: dict[str, dict[str, Any]] = {}

    def done() -> int:
        return len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))

    def objective(trial: optuna.Trial) -> tuple[float, ...]:
        plan = _suggest(trial, space, list(problem.promises))
        key = repr(plan)
        if key not in known:
            known[key] = _price(problem, plan)
        row = known[key]
        for name, violation in (row["violations"] | row["lost"]).items():
            trial.set_constraint(name, violation)
        trial.set_user_attr("plan", _to_json(plan))
        trial.set_user_attr("kept", all(value <= 0 for value in row["violations"].values()))
        values = (row["tokens"], row["latency"], row["loss"])
        return (*values, float(plan.platform.replicas)) if len(space.replicas) > 1 else values

    try:
        if not study.trials:
            for start in _starts(problem, space):
                study.enqueue_trial(start)
        while (finished := done()) < trials:
            if progress is not None:
                progress(finished, trials)
            study.optimize(objective, n_trials=1)
        if progress is not None:
            progress(done(), trials)
        return [_tried(trial) for trial in study.get_trials(states=(TrialState.COMPLETE,))]
    except StorageInternalError as error:
        cause = str(error.__cause__ or error).splitlines()[0]
        raise RunError(
            f"{path}: the search cannot be kept ({cause}); see that the disk has room and that no other "
            "`dynasor tune` uses this --out, then run the same command again"
        ) from None


def _tried(trial: optuna.trial.FrozenTrial) -> Tried:
    tokens, latency, loss = trial.values[:3]
    plan = _from_json(trial.user_attrs["plan"])
    return Tried(plan, tokens, latency, loss, trial.user_attrs["kept"])


def _open(path: Path, seed: int, describes: str, by_replicas: bool) -> optuna.Study:
    try:
        import optuna
    except ModuleNotFoundError:
        raise MissingExtra("optuna is not installed: pip install 'dynasor-llm[tune]'") from None
    optuna.logging.set_verbosity(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            study = optuna.create_study(
                storage=f"sqlite:///{path}",
                study_name=STUDY,
                sampler=optuna.samplers.TPESampler(seed=seed),
                directions=["minimize"] * (4 if by_replicas else 3),
                load_if_exists=True,
            )
    except Exception as error:  # whatever the file is, sqlalchemy has an error of its own for it
        raise RunError(
            f"{path}: cannot be used as a study ({str(error).splitlines()[0]}); choose another --out"
        ) from None
    held = study.user_attrs.get("describes")
    if held is None:
        study.set_user_attr("describes", describes)
    elif held != describes:
        raise RunError(
            f"{path} holds the search of other traces, promises or settings; choose another --out, "
            "or --fresh to throw it away"
        )
    return study


def _price(problem: Problem, plan: Plan) -> dict[str, Any]:
    expected = problem.predict(plan, lambda split: split.search, repeats=[0])
    short = {_name(each): each.excess for each in problem.shortfalls(expected)}
    return {
        "tokens": problem.mean({name: each.tokens for name, each in expected.items()}),
        "latency": problem.mean(
            {name: each.latency.percentile(90) for name, each in expected.items()}
        ),
        "loss": problem.mean({name: each.loss for name, each in expected.items()}),
        "violations": dict.fromkeys(_promised(problem), 0.0) | short,
        "lost": {
            f"{name}.epsilon": each.loss - (problem.promises[name].epsilon or 0.0)
            for name, each in expected.items()
        },
    }


def _name(short: Shortfall) -> str:
    return f"{short.group}.{short.part}"


def _promised(problem: Problem) -> list[str]:
    """Names of all constraints, so that every trial has all."""
    names = []
    for group, promise in problem.promises.items():
        names += [f"{group}.latency.p{percent:g}" for percent, _ in promise.targets]
        names += [
            f"{group}.{part}"
            for part in ("deadline", "tokens_per_query", "tokens_per_day")
            if getattr(promise, part) is not None
        ]
    return names


def _suggest(trial: optuna.Trial, space: Space, groups: list[str]) -> Plan:
    def pick(name: str, values: tuple[Any, ...]) -> Any:
        """One of the values, which stand in order."""
        return values[trial.suggest_int(name, 0, len(values) - 1)] if len(values) > 1 else values[0]

    settings = {}
    for group in groups:
        family = trial.suggest_categorical(f"{group}: family", list(space.rules))
        settings[group] = Setting(
            pick(f"{group}: {family}", space.rules[str(family)]),
            pick(f"{group}: samples", space.samples),
            pick(f"{group}: wave", space.waves),
        )
    platform = Platform(
        str(trial.suggest_categorical("policy", list(space.policies))),
        pick("places", space.places),
        pick("rank", space.ranks),
        pick("replicas", space.replicas),
    )
    return Plan(platform, settings)


def _starts(problem: Problem, space: Space) -> list[dict[str, Any]]:
    """The full budget and the default rule, at a small and at a large wave."""
    starts = []
    for family, wave in (
        (FULL, len(space.waves) - 1),
        ("default", 0),
        ("default", 3),
        ("default", 5),
    ):
        if family not in space.rules:
            continue
        start: dict[str, Any] = {
            "policy": space.policies[0], "places": 0, "rank": 0, "replicas": len(space.replicas) - 1
        }  # fmt: skip
        for group in problem.promises:
            rules = space.rules[family]
            chosen = rules.index("default:0") if "default:0" in rules else 0
            start |= {
                f"{group}: family": family,
                f"{group}: {family}": chosen,
                f"{group}: samples": 0,
                f"{group}: wave": min(wave, len(space.waves) - 1),
            }
        starts.append(start)
    return starts


def _to_json(plan: Plan) -> dict[str, Any]:
    settings = {group: list(setting) for group, setting in plan.settings.items()}
    return {"platform": list(plan.platform), "settings": settings}


def _from_json(values: Mapping[str, Any]) -> Plan:
    return Plan(
        Platform(*values["platform"]),
        {group: Setting(*setting) for group, setting in values["settings"].items()},
    )
