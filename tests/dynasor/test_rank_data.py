import gzip
import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynasor.errors import DataError, MissingExtra
from dynasor.ranking.build_data import build_data, read_split
from dynasor.ranking.conversations import Conversation, conversation_examples, parse_conversation
from dynasor.ranking.dataset import SPLITS, read_examples, split_of, write_examples
from dynasor.ranking.examples import LengthExample
from dynasor.ranking.grouping import ConversationGroups
from dynasor.ranking.json_stream import stream_objects
from dynasor.ranking.prompt_text import CONTEXT_CHARACTERS, prompt_text, split_question
from dynasor.ranking.sources import examples_of_chat, is_trace
from dynasor.ranking.token_count import token_count
from dynasor.ranking.trace_examples import trace_examples
from dynasor.traces import TraceSample

texts = st.text(max_size=50)
examples = st.builds(
    LengthExample,
    prompt=texts,
    tokens=st.floats(0.001, 1e6),
    conversation=texts,
    samples=st.integers(1, 100),
    spread=st.none() | st.floats(0, 10),
    cut=st.floats(0, 1),
    turn=st.integers(0, 50),
)


def words(text):
    return len(text.split())


def said(*contents, name=None, first="user"):
    roles = ["user", "assistant"] if first == "user" else ["assistant", "user"]
    return Conversation(
        name,
        tuple({"role": roles[n % 2], "content": text} for n, text in enumerate(contents)),
    )


def examples_of(*conversations, later_turns=True):
    left_out = Counter()
    found = conversation_examples(conversations, words, later_turns=later_turns, left_out=left_out)
    return list(found), left_out


class TestDataFile:
    @pytest.mark.parametrize("name", ["data.jsonl", "data.jsonl.gz"])
    @given(rows=st.lists(examples, min_size=1, max_size=5))
    def test_reads_what_it_wrote(self, tmp_path_factory, name, rows):
        path = tmp_path_factory.mktemp("data") / name
        assert write_examples(path, rows) == len(rows)
        assert read_examples(path) == rows

    @pytest.mark.parametrize(
        ("line", "says"),
        [
            ('{"prompt": "a", "conversation": "c"}', "field 'tokens' is missing"),
            ('{"tokens": 3, "conversation": "c"}', "field 'prompt' is missing"),
            ('{"prompt": "a", "tokens": 0, "conversation": "c"}', "field 'tokens' must be"),
            ('{"prompt": "a", "tokens": NaN, "conversation": "c"}', "field 'tokens' must be"),
            ('{"prompt": "a", "tokens": true, "conversation": "c"}', "field 'tokens' must be"),
            ('{"prompt": 5, "tokens": 1, "conversation": "c"}', "field 'prompt' must be a text"),
            ('{"prompt": "", "tokens": 1, "conversation": "c", "cut": 2}', "field 'cut' must be"),
            ('{"prompt": "", "tokens": 1, "conversation": "c", "turn": -1}', "field 'turn'"),
            ("[1]", "not a JSON object"),
            ("{", "not JSON"),
            ("[" * 100_000, "line 2"),
        ],
    )
    def test_wrong_lines_name_file_line_and_field(self, tmp_path, line, says):
        path = tmp_path / "data.jsonl"
        path.write_text('{"prompt": "a", "tokens": 1, "conversation": "c"}\n' + line + "\n")
        with pytest.raises(DataError, match=r"data.jsonl, line 2") as caught:
            read_examples(path)
        assert says in str(caught.value)

    def test_an_empty_missing_or_torn_file_is_one_error(self, tmp_path):
        (tmp_path / "empty.jsonl").write_text("\n")
        with pytest.raises(DataError, match="no example"):
            read_examples(tmp_path / "empty.jsonl")
        with pytest.raises(DataError, match="cannot be read"):
            read_examples(tmp_path / "none.jsonl")
        write_examples(tmp_path / "a.jsonl.gz", [LengthExample("a" * n, 1, "c") for n in range(99)])
        torn = (tmp_path / "a.jsonl.gz").read_bytes()[:-20]
        (tmp_path / "torn.jsonl.gz").write_bytes(torn)
        with pytest.raises(DataError, match="broken"):
            read_examples(tmp_path / "torn.jsonl.gz")


class TestSplit:
    def test_is_stable_and_has_its_shares(self):
        assert [split_of(name) for name in ("a", "b", "c", "d")] == [
            "train", "train", "train", "test"
        ]  # fmt: skip
        found = Counter(split_of(str(n)) for n in range(20_000))
        assert found["test"] == pytest.approx(2600, abs=200)
        assert found["validation"] == pytest.approx(1000, abs=150)

    def test_same_first_prompts_and_pieces_are_one_group(self):
        groups = ConversationGroups()
        first = groups.group("a", "Hello  World")
        assert groups.group("b", "hello world") == first
        assert groups.group("a", "Something else") == first
        assert groups.group("a", None) == first
        other = groups.group("c", "Another")
        assert other != first
        assert groups.group("c", "something ELSE") is None

    @given(
        st.lists(
            st.tuples(
                st.none() | st.sampled_from("abcd"),
                st.none() | st.sampled_from(["p", "q", "P", "r"]),
            )
        )
    )
    def test_no_prompt_and_no_conversation_is_in_two_groups(self, pieces):
        groups = ConversationGroups()
        of_prompt, of_name = {}, {}
        for name, prompt in pieces:
            if name is None and prompt is None:
                continue
            group = groups.group(name, prompt)
            if group is None:
                continue
            if prompt is not None:
                assert of_prompt.setdefault(prompt.lower(), group) == group
            if name is not None:
                assert of_name.setdefault(name, group) == group


class TestConversations:
    def test_each_answer_is_an_example_with_what_came_before(self):
        (first, later), _ = examples_of(said("one", "a b", "two", "c d e"))
        assert (first.prompt, first.tokens, first.turn) == ("one", 2, 0)
        assert (later.tokens, later.turn) == (3, 1)
        assert split_question(later.prompt)[1] == "two"
        assert "a b" in later.prompt
        assert first.conversation == later.conversation

    def test_first_turns_only(self):
        found, _ = examples_of(said("one", "a", "two", "b"), later_turns=False)
        assert [example.prompt for example in found] == ["one"]

    def test_a_piece_that_begins_with_an_answer_has_no_first_turn(self):
        found, _ = examples_of(
            said("zero", "x", name="k"), said("left", "two", "b b", first="assistant", name="k")
        )
        assert [(each.turn, each.tokens) for each in found] == [(0, 1), (1, 2)]
        assert found[0].conversation == found[1].conversation

    def test_empty_double_and_unanswered_ones_are_counted(self):
        found, left_out = examples_of(
            said("a", "x"), said("a", "x"), said("b", ""), said("c"), said("y", first="assistant")
        )
        assert [each.prompt for each in found] == ["a"]
        assert sum(left_out.values()) == 3

    def test_shapes_of_sharegpt_and_lmsys(self):
        sharegpt = {"id": "x_12", "conversations": [{"from": "human", "value": "hi"}]}
        lmsys = {"conversation_id": "x_12", "conversation": [{"role": "user", "content": "hi"}]}
        message = ({"role": "user", "content": "hi"},)
        assert parse_conversation(sharegpt, "") == Conversation("x", message)
        assert parse_conversation(lmsys, "") == Conversation("x_12", message)

    @pytest.mark.parametrize(
        "row",
        [5, {}, {"conversations": 3}, {"conversations": [{}]}, {"messages": [{"role": "user"}]}],
    )
    def test_wrong_rows_are_named(self, row):
        with pytest.raises(DataError, match="row 7"):
            parse_conversation(row, "row 7")


class TestJsonStream:
    @given(st.lists(st.dictionaries(texts, texts, min_size=1), max_size=4), st.data())
    def test_a_cut_file_gives_its_whole_objects(self, tmp_path_factory, rows, data):
        whole = json.dumps(rows, indent=data.draw(st.none() | st.just(1)), ensure_ascii=False)
        raw = whole.encode()
        cut = data.draw(st.integers(1, len(raw)))
        path = tmp_path_factory.mktemp("json") / "list.json"
        path.write_bytes(raw[:cut])
        found = [row for row, _ in stream_objects(path)]
        assert found == rows[: len(found)]
        assert len(found) >= len(rows) - 1 or cut < len(raw) - 1

    def test_lines_and_lists_are_the_same(self, tmp_path):
        rows = [{"a": 1}, {"b": "é"}]
        (tmp_path / "a.json").write_text(json.dumps(rows))
        with gzip.open(tmp_path / "a.jsonl.gz", "wt") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
        for name in ("a.json", "a.jsonl.gz"):
            assert [row for row, _ in stream_objects(tmp_path / name)] == rows

    def test_broken_inside_is_an_error(self, tmp_path):
        (tmp_path / "a.json").write_text('[{"a": 1}, {"b" 2}, {"c": 3}, {"d": 4}]')
        with pytest.raises(DataError, match="object 2"):
            list(stream_objects(tmp_path / "a.json"))
        (tmp_path / "b.json").write_bytes(b'[{"a": "\xff\xff\xff"}]')
        with pytest.raises(DataError, match="UTF-8"):
            list(stream_objects(tmp_path / "b.json"))


class TestTraces:
    def test_samples_give_mean_spread_and_share_of_cut_ones(self):
        samples = [
            TraceSample("q", 0, 10, prompt="How?", finish_reason="stop"),
            TraceSample("q", 1, 1000, prompt="How?", finish_reason="length"),
            TraceSample("q", 2, 5, prompt="How?", finish_reason="aborted"),
            TraceSample("r", 0, 7, prompt=[{"role": "user", "content": "Why?"}]),
        ]
        left_out = Counter()
        q, r = trace_examples(samples, left_out=left_out)
        assert (q.prompt, q.tokens, q.samples, q.cut) == ("How?", 505, 2, 0.5)
        assert q.spread == pytest.approx(3.2563, abs=1e-3)  # ln(100) / sqrt(2)
        assert (r.prompt, r.tokens, r.samples, r.spread, r.cut) == ("Why?", 7, 1, None, 0)
        assert sum(left_out.values()) == 1

    def test_a_limit_tells_which_samples_were_cut(self):
        samples = [TraceSample("q", n, n, prompt="p") for n in (5, 10)]
        (found,) = trace_examples(samples, max_tokens=10, left_out=Counter())
        assert found.cut == 0.5

    def test_prompts_may_come_from_elsewhere(self):
        samples = [TraceSample("q", 0, 5)]
        (found,) = trace_examples(samples, prompts={"q": "What?"}, left_out=Counter())
        assert found.prompt == "What?"
        samples = [TraceSample("suite/17", 0, 5)]
        (found,) = trace_examples(samples, prompts={"/17": "Who?"}, left_out=Counter())
        assert found.prompt == "Who?"
        with pytest.raises(DataError, match="'suite/17' of the trace has no field 'prompt'"):
            list(trace_examples(samples, left_out=Counter()))


class TestPromptText:
    def test_one_question_stays_as_it_is(self):
        assert prompt_text("<b>") == "<b>"
        assert prompt_text([{"role": "user", "content": "hi"}]) == "hi"
        assert prompt_text([]) == ""
        assert prompt_text([{"role": "user", "content": [{"type": "text", "text": "hi"}]}]) == "hi"
        assert prompt_text([{"role": "user"}]) == ""

    def test_the_question_is_whole_and_the_context_bounded(self):
        question = "q" * 3 * CONTEXT_CHARACTERS
        text = prompt_text(
            [{"role": "assistant", "content": "c" * 99_999}, {"role": "user", "content": question}]
        )
        context, found = split_question(text)
        assert found == question
        assert len(context) == CONTEXT_CHARACTERS


class TestFolder:
    def test_splits_card_and_no_leak(self, tmp_path):
        rows = [LengthExample(str(n), 1 + n, str(n // 2), turn=n % 2) for n in range(400)]
        out = tmp_path / "data"
        for _ in range(2):  # a second time replaces the first
            card = build_data(rows, out, {"source": "test"}, Counter({"odd": 2}))
        found = {split: read_split(out, split) for split in SPLITS}
        assert sorted((r for each in found.values() for r in each), key=rows.index) == rows
        names = [{each.conversation for each in found[split]} for split in SPLITS]
        assert sum(map(len, names)) == len(set.union(*names)) == 200
        assert json.loads((out / "card.json").read_text()) == card
        assert card["examples"] == {split: len(found[split]) for split in SPLITS}
        assert sum(card["first_turns"].values()) == 200
        assert card["left_out"] == {"odd": 2}
        assert sorted(p.name for p in out.iterdir()) == [
            "card.json", "test.jsonl", "train.jsonl", "validation.jsonl"
        ]  # fmt: skip

    def test_a_foreign_folder_is_left_alone(self, tmp_path):
        (tmp_path / "mine.txt").write_text("precious")
        with pytest.raises(DataError, match="holds other files"):
            build_data([LengthExample("a", 1, "c")], tmp_path, {}, Counter())
        with pytest.raises(DataError, match="is a file"):
            build_data([], tmp_path / "mine.txt", {}, Counter())
        with pytest.raises(DataError, match="gave no example"):
            build_data([], tmp_path / "new", {}, Counter())

    def test_a_source_that_fails_leaves_the_old_data(self, tmp_path):
        build_data([LengthExample("a", 1, "c")], tmp_path, {}, Counter())

        def failing():
            yield LengthExample("b", 2, "c")
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            build_data(failing(), tmp_path, {}, Counter())
        assert [each.prompt for each in read_split(tmp_path, split_of("c"))] == ["a"]
        assert not list(tmp_path.glob("*.part"))


class TestSources:
    def test_kind_of_a_file(self, tmp_path):
        (tmp_path / "a.jsonl").write_text('{"query": "q", "sample": 0, "tokens": 3}\n')
        (tmp_path / "b.json").write_text('[{"conversations": []}]')
        (tmp_path / "c.json").write_text('[{"text": "x"}]')
        (tmp_path / "d.json").write_text("[]")
        assert is_trace(str(tmp_path / "a.jsonl"))
        assert not is_trace(str(tmp_path / "b.json"))
        assert not is_trace("lmsys")
        with pytest.raises(DataError, match="neither a trace"):
            is_trace(str(tmp_path / "c.json"))
        with pytest.raises(DataError, match="no JSON object"):
            is_trace(str(tmp_path / "d.json"))

    def test_lmsys_rows_through_datasets(self, tmp_path):
        """The schema of LMSYS-Chat-1M, in the file format of the hub."""
        pytest.importorskip("datasets")
        import pyarrow
        import pyarrow.parquet

        rows = [
            {
                "conversation_id": f"{n:032x}",
                "model": "vicuna-13b" if n % 2 else "koala-13b",
                "conversation": [
                    {"content": f"question {n}", "role": "user"},
                    {"content": "an answer " * n, "role": "assistant"},
                    {"content": "and then?", "role": "user"},
                    {"content": "more", "role": "assistant"},
                ],
                "turn": 2,
                "language": "English",
                "openai_moderation": [{"flagged": False}],
                "redacted": False,
            }
            for n in range(1, 7)
        ]
        folder = tmp_path / "lmsys-chat-1m"
        folder.mkdir()
        pyarrow.parquet.write_table(
            pyarrow.Table.from_pylist(rows), folder / "train-00000-of-00001.parquet"
        )
        for source in (folder, folder / "train-00000-of-00001.parquet"):
            left_out = Counter()
            found = list(
                examples_of_chat(
                    str(source), words, later_turns=False, model="vicuna-13b", left_out=left_out
                )
            )
            assert [(each.prompt, each.tokens) for each in found] == [
                ("question 1", 2), ("question 3", 6), ("question 5", 10)
            ]  # fmt: skip
            assert sum(left_out.values()) == 3

    def test_an_unknown_source_is_named(self):
        with pytest.raises(DataError, match="no source 'nothing'"):
            list(
                examples_of_chat(
                    "nothing", words, later_turns=False, model=None, left_out=Counter()
                )
            )


class TestTokenCount:
    def test_chatgpt(self):
        pytest.importorskip("bpe_openai")
        # Published by OpenAI: "tiktoken is great!" is 83, 1609, 5963, 374, 2294, 0.
        assert token_count("cl100k_base")("tiktoken is great!") == 6

    def test_an_unknown_one_is_named(self, tmp_path):
        with pytest.raises(DataError, match="no tokenizer"):
            token_count("cl101k")
        (tmp_path / "tokenizer.json").write_text("{}")
        with pytest.raises((DataError, MissingExtra)):
            token_count(str(tmp_path))

    def test_a_model_folder(self):
        pytest.importorskip("tokenizers")
        from dynasor.embedded_model import path

        assert token_count(str(path()))("What is 2 + 2?") > 3
