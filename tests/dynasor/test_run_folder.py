"""A run on disk: what survives a kill, what is refused."""

import os

import pytest

from algorithms.program import Generation, Request, Sampling
from dynasor.errors import RunError
from dynasor.run_folder import RunFolder
from dynasor.traces import read_traces


def folder(path, settings=None, **more):
    return RunFolder(
        path,
        settings or {"model": "m"},
        golds={"q": "1"},
        extract=lambda text: text or None,
        **more,
    )


def request(index=0):
    return Request(f"q#{index}", "q", "what?", Sampling(), index=index)


def generation(index=0, reason="stop"):
    return Generation(f"q#{index}", "1", 5, prompt_tokens=3, cached_tokens=2, finish_reason=reason)


def test_a_finished_sample_is_found_again(tmp_path):
    with folder(tmp_path) as run:
        run.write(None, request(0), generation(0))
        run.write(None, request(1), generation(1, "aborted"))
    with folder(tmp_path) as run:
        assert run.recorded(request(0)) == generation(0)
        assert run.recorded(request(1)) is None, "a cut sample is run again"
        assert run.finished_samples == 1
    (first, _) = read_traces(tmp_path / "samples.jsonl")
    assert (first.query, first.sample, first.answer, first.gold) == ("q", 0, "1", "1")


def test_a_torn_last_line_costs_that_sample_only(tmp_path):
    with folder(tmp_path) as run:
        run.write(None, request(0), generation(0))
        run.write(None, request(1), generation(1))
        run.write_outcome({"query": "q", "answer": "1"})
    for name in ("samples.jsonl", "outcomes.jsonl"):
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[:-7])
    with folder(tmp_path) as run:
        assert run.recorded(request(0)) is not None
        assert run.recorded(request(1)) is None
        assert run.outcomes == {}
        run.write(None, request(1), generation(1))
    assert len(list(read_traces(tmp_path / "samples.jsonl"))) == 2


def test_another_run_is_refused_and_the_difference_named(tmp_path):
    folder(tmp_path, {"rule": "fixed:4"}).close()
    with pytest.raises(RunError, match=r"rule: 'fixed:4' there, 'esc' now.*--fresh"):
        folder(tmp_path, {"rule": "esc"})


def test_fresh_throws_the_earlier_run_away(tmp_path):
    with folder(tmp_path) as run:
        run.write(None, request(0), generation(0))
    with folder(tmp_path, {"model": "other"}, fresh=True) as run:
        assert run.recorded(request(0)) is None


def test_a_damaged_outcome_is_named(tmp_path):
    folder(tmp_path).close()
    (tmp_path / "outcomes.jsonl").write_text('{"query": "q"}\nrubbish\n')
    with pytest.raises(RunError, match="line 2 is damaged"):
        folder(tmp_path)


def test_a_full_disk_is_one_clear_error(tmp_path):
    run = folder(tmp_path)
    real = run._writer._file
    full = os.open("/dev/full", os.O_WRONLY)
    run._writer._file = os.fdopen(full, "wb", buffering=0)
    with pytest.raises(RunError, match=r"cannot write to .*No space left"):
        run.write(None, request(0), generation(0))
    run._writer._file.close()
    run._writer._file = real
    run.close()


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot write to"):
        folder(tmp_path / "file" / "run")
