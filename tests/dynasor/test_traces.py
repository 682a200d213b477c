import gzip
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynasor import traces
from dynasor.errors import DataError
from dynasor.traces import TraceSample, TraceWriter, read_traces

texts = st.text(max_size=20)


@settings(deadline=None, max_examples=25)
@given(
    st.lists(
        st.builds(
            TraceSample,
            query=texts,
            sample=st.integers(0, 99),
            tokens=st.integers(0, 99),
            answer=st.none() | texts,
            gold=st.none() | texts,
            text=st.none() | texts,
            confidence=st.none() | st.lists(st.floats(0, 9), max_size=3),
            extra=st.dictionaries(st.just("extracted"), texts, max_size=1),
        ),
        max_size=4,
    ),
    st.sampled_from(["a.jsonl", "a.jsonl.gz"]),
)
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, samples: list[TraceSample], name: str
) -> None:
    path = tmp_path_factory.mktemp("traces") / name
    for part in (samples[:2], samples[2:]):  # the second writer appends
        with TraceWriter(path) as writer:
            for sample in part:
                writer.write(sample)
    assert list(read_traces(path)) == samples


GOOD = '{"query": "q", "sample": 0, "tokens": 3}\n'


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: not JSON"),
        ("[1]", "line 2: not a JSON object"),
        ('{"query": "q", "sample": 0}', "line 2: field 'tokens' is missing"),
        ('{"query": 1, "sample": 0, "tokens": 1}', "line 2: field 'query' must be a text, not 1"),
        (
            '{"query": "q", "sample": 0, "tokens": true}',
            "'tokens' must be a whole number, not True",
        ),
        ('{"query": "q", "sample": 0, "tokens": -1}', "'tokens' must be 0 to 1000000000, not -1"),
        (
            f'{{"query": "q", "sample": 0, "tokens": 1{400 * "0"}}}',
            "'tokens' must be 0 to 1000000000, not 1000",
        ),
        (100_000 * "[", "line 2: not JSON"),
        ('{"query": "q", "sample": 0, "tokens": 1, "answer": 5}', "'answer' must be a text, not 5"),
    ],
)
def test_errors_name_line_and_field(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(GOOD + line + "\n")
    with pytest.raises(DataError) as caught:
        list(read_traces(path))
    assert message in str(caught.value)
    assert "bad.jsonl" in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.jsonl"):
        list(read_traces(tmp_path / "nowhere.jsonl"))


def test_a_torn_end_is_an_error_skipped_or_mended(tmp_path: Path) -> None:
    path = tmp_path / "torn.jsonl"
    path.write_text(GOOD + GOOD[:20])
    with pytest.raises(DataError, match="line 2"):
        list(read_traces(path))
    assert len(list(read_traces(path, skip_torn_end=True))) == 1
    with TraceWriter(path) as writer:
        writer.write(TraceSample("r", 1, 2))
    assert [sample.query for sample in read_traces(path)] == ["q", "r"]


def test_a_torn_gzip_stream(tmp_path: Path) -> None:
    path = tmp_path / "torn.jsonl.gz"
    path.write_bytes(gzip.compress((GOOD * 50).encode())[:-9])
    with pytest.raises(DataError, match="ends early"):
        list(read_traces(path))
    list(read_traces(path, skip_torn_end=True))


def test_a_line_has_a_largest_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces, "MAX_LINE_BYTES", 30)
    path = tmp_path / "long.jsonl"
    path.write_text(GOOD)
    with pytest.raises(DataError, match="longer than 30 bytes"):
        list(read_traces(path))


def test_a_broken_gzip_stream_is_told(tmp_path: Path) -> None:
    path = tmp_path / "broken.jsonl.gz"
    packed = bytearray(gzip.compress(GOOD.encode() * 2000))
    packed[40:60] = b"\xff" * 20
    path.write_bytes(packed)
    with pytest.raises(DataError, match=r"broken\.jsonl\.gz: .*gzip stream is broken after line"):
        list(read_traces(path))
