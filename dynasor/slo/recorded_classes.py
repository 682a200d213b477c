"""The recorded queries of each class of `[slo]`, from trace files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from dynasor.bench.recorded import RecordedQuestion, check_budget, collect_questions
from dynasor.bench.simulated_bench import ranked_questions
from dynasor.config import NO_RANKING, Config
from dynasor.errors import ConfigError, DataError
from dynasor.ranking.ranked import Ranked
from dynasor.slo.load_model import ClassTraffic
from dynasor.traces import read_traces

FEWEST = 10
"""Recorded queries of a class."""


def classes_of(config: Config, traces: Sequence[str]) -> dict[str, ClassTraffic]:
    """What comes of each class.

    Args:
        config: with `[slo]`.
        traces: `FILE` for all classes that have none of their own, or `CLASS=FILE`.

    Raises:
        ConfigError: if a class has no trace, or a trace no class, or no class is promised anything.
        DataError: if a file cannot be read, or holds too little.
    """
    promises = config.slo.classes
    if not promises:
        raise ConfigError(
            "[slo] promises nothing: add a class, such as [slo.classes.all] with epsilon = 0.02"
        )
    shared, own = _sort(traces, list(promises))
    read: dict[Path, dict[str, RecordedQuestion]] = {}
    found = {}
    for name, promise in promises.items():
        files = own.get(name, shared)
        if not files:
            raise ConfigError(
                f"--traces: class {name} has none; give {name}=FILE, or FILE for all, samples of "
                "`dynasor record`"
            )
        questions: dict[str, RecordedQuestion] = {}
        for path in files:
            if path not in read:
                read[path] = collect_questions(read_traces(path, skip_torn_end=True))
            for query, question in read[path].items():
                questions[f"{path}/{query}" if len(files) > 1 else query] = question
        _check_asked_once(name, [read[path] for path in dict.fromkeys(files)])
        check_budget(questions, config.algorithm.samples)
        if len(questions) < FEWEST:
            raise DataError(
                f"class {name}: {len(questions)} recorded queries are too few to search and calibrate "
                f"on; record {FEWEST} or more, several hundred for a guarantee"
            )
        if promise.loss == "accuracy":
            _check_graded(name, questions)
        found[name] = ClassTraffic(questions, promise.share, promise.weight)
    return found


def trace_files(config: Config, traces: Sequence[str]) -> list[Path]:
    """All files, each once."""
    shared, own = _sort(traces, list(config.slo.classes))
    return list(dict.fromkeys([*shared, *(path for files in own.values() for path in files)]))


def _sort(traces: Sequence[str], names: Sequence[str]) -> tuple[list[Path], dict[str, list[Path]]]:
    """Files for all classes, and those of one class."""
    shared: list[Path] = []
    own: dict[str, list[Path]] = {}
    for text in traces:
        name, equals, file = text.partition("=")
        if equals and name in names:
            own.setdefault(name, []).append(Path(file))
        elif equals and not Path(text).exists():
            raise ConfigError(
                f"--traces {text}: there is no class {name}; there are {', '.join(names)}"
            )
        else:
            shared.append(Path(text))
    return shared, own


def _check_asked_once(name: str, files: Sequence[Mapping[str, RecordedQuestion]]) -> None:
    """See that no question stands in two files: recorded twice it is still one query."""
    asked: dict[str, str] = {}
    for questions in files:
        here = {each.prompt: query for query, each in questions.items() if each.prompt is not None}
        for prompt, query in here.items():
            if prompt in asked:
                raise DataError(
                    f"class {name}: query {query} of one trace asks what {asked[prompt]} of another "
                    "asks; recorded twice it is no second query to calibrate on; give each question once"
                )
        asked |= here


def _check_graded(name: str, questions: Mapping[str, RecordedQuestion]) -> None:
    for query, question in questions.items():
        if not question.query.graded:
            raise DataError(
                f"slo.classes.{name}.loss = 'accuracy': the trace lacks the right answer (`gold`) of "
                f"query {query}; use loss = 'answer', which needs none"
            )


def ranks_of(
    config: Config, classes: Mapping[str, ClassTraffic]
) -> dict[str, Mapping[str, Ranked]]:
    """What the configured ranker says of each class's questions; empty where none is configured.

    Raises:
        DataError: if a trace does not say what was asked, or there is no such ranker.
        MissingExtra: if the ranker needs a package that is not there.
    """
    if config.ranking.model == NO_RANKING:
        return {}
    return {
        name: ranked_questions(config.ranking, each.questions) for name, each in classes.items()
    }
