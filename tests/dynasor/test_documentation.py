"""What the documentation tells readers to type is there: commands, options, settings, files, links."""

import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import get_args, get_origin

import pytest
import typer
from pydantic import BaseModel

from dynasor.cli import app
from dynasor.config import Config, load_config

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path
    for folder in (ROOT, ROOT / "docs", ROOT / "dynasor")
    for path in (folder.glob("*.md") if folder == ROOT else folder.rglob("*.md"))
)
SOURCES = sorted(path for name in ("dynasor", "serving") for path in (ROOT / name).rglob("*.py"))
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SHELL_WORDS = ("|", "||", "&&", ";", "<", ">", ">>", "2>&1", "&")


def blocks(path: Path, language: str) -> list[str]:
    return [text for kind, text in FENCE.findall(path.read_text()) if kind == language]


def typed(path: Path) -> Iterator[list[str]]:
    """Command lines, word by word: of blocks, of indented lines, and of `code` in a sentence."""
    text = path.read_text()
    lines = FENCE.sub(lambda found: found[2] if found[1] == "sh" else "", text)
    lines = lines.replace("\\\n", " ")
    code = re.findall(r"`(dynasor [^`\n]+)`", text) if path.suffix == ".md" else []
    for line in [*lines.splitlines(), *code]:
        if not re.match(r"\s*([A-Z_]+=\S+ )*(dynasor|python) ", line):
            continue
        words: list[str] = []
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
        lexer.whitespace_split, lexer.commenters = True, "#"
        for word in [*lexer, ";"]:
            if word in SHELL_WORDS:
                yield words
                words = []
            elif words or "=" not in word:
                words.append(word)


def said(path: Path) -> list[list[str]]:
    """What a docstring or message of ours tells a reader to type."""
    found = re.findall(r"[`:] ?(dynasor [a-z-]+(?: [^`\n\"']+)?)", path.read_text())
    return [text.split() for text in found]


@cache
def commands() -> dict[str, set[str]]:
    """Command -> its options."""
    found: dict[str, set[str]] = {}

    def add(name: str, command: object) -> None:
        inner = getattr(command, "commands", {})
        for each, below in inner.items():
            add(f"{name} {each}".strip(), below)
        if not inner:
            parameters = getattr(command, "params", [])
            names = {text for each in parameters for text in (*each.opts, *each.secondary_opts)}
            found[name] = names | {"--help", "-h"}

    add("", typer.main.get_command(app))
    return found


def wrong(words: list[str]) -> str | None:
    """What is wrong with a command line of ours."""
    if words[0] != "dynasor" or words[1].startswith("-"):
        return None
    name = next((n for n in (" ".join(words[1:3]), words[1]) if n in commands()), None)
    if name is None:
        return f"no command: {' '.join(words)}"
    options = [
        re.sub(r"[=,.):\]]*$", "", word.partition("=")[0]) for word in words if word[0] == "-"
    ]
    unknown = [
        each.strip("[") for each in options
        if each.startswith("--") and len(each) > 2 and each not in commands()[name]
    ]  # fmt: skip
    return f"{name} has no {', '.join(unknown)}: {' '.join(words)}" if unknown else None


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_and_their_options_are_there(path):
    assert not [problem for words in typed(path) if len(words) > 1 and (problem := wrong(words))]


def test_what_messages_and_docstrings_tell_to_type_is_there():
    found = [words for path in SOURCES for words in said(path)]
    assert len(found) > 50
    families = {name.split()[0] for name in commands()}
    assert not [words for words in found if words[1] not in families]


def test_the_reading_of_command_lines_finds_mistakes():
    assert wrong(["dynasor", "bench", "online", "--rates", "1"]) is None
    assert "has no --rate" in (wrong(["dynasor", "bench", "online", "--rate", "1"]) or "")
    assert "no command" in (wrong(["dynasor", "tuna"]) or "")
    assert sum(len(list(typed(path))) for path in PAGES) > 100


def test_programs_that_are_run_are_there_and_know_their_options():
    missing = []
    for path in PAGES:
        for words in typed(path):
            if words[:1] != ["python"] or len(words) < 2:
                continue
            name = words[2].replace(".", "/") + ".py" if words[1] == "-m" else words[1]
            name = name.removeprefix("../../")
            if not name.startswith(("benchmarks/", "examples/", "dynasor/", "serving/")):
                continue
            text = (ROOT / name).read_text() if (ROOT / name).is_file() else ""
            options = [word.partition("=")[0].strip("[]") for word in words if word[:2] == "--"]
            missing += [
                f"{path.name}: {name} {option}"
                for option in options or [""]
                if (f'"{option}"' if option else "main") not in text
            ]
    assert not missing


@pytest.mark.parametrize(
    ("path", "text"),
    [
        pytest.param(path, text, id=f"{path.stem}{number}")
        for path in PAGES
        for number, text in enumerate(blocks(path, "toml"))
    ],
)
def test_configurations_are_read(path, text, tmp_path):
    file = tmp_path / "dynasor.toml"
    file.write_text(text)
    load_config(file, environment={})


def has_setting(name: str) -> bool:
    known: object = Config
    for part in name.split("."):
        if get_origin(known) is dict:
            known = get_args(known)[1]
        elif (
            not (isinstance(known, type) and issubclass(known, BaseModel))
            or part not in known.model_fields
        ):
            return False
        else:
            known = known.model_fields[part].annotation
    return True


def test_settings_that_are_named_are_there():
    sections = "|".join(Config.model_fields)
    named = {
        (path.name, name)
        for path in PAGES
        for name in re.findall(rf"`((?:{sections})(?:\.[a-z_]+)+)(?: = [^`]*)?`", path.read_text())
        if not name.endswith((".json", ".py", ".md", ".toml"))
    }
    assert len(named) > 10
    assert not [each for each in named if not has_setting(each[1])]


def test_metrics_that_are_listed_are_there():
    listed = {
        name
        for path in PAGES
        for name in re.findall(r"`(dynasor_[a-z_]+?)(?:_total)?(?:\{[^`]*\})?`", path.read_text())
    }
    told, of_promises = (
        (ROOT / "serving" / n).read_text() for n in ("metrics.py", "slo_metrics.py")
    )
    known = {f"dynasor_slo_{name}" for name in re.findall(r'gauge\(\s*"([a-z_]+)"', of_promises)}
    assert len(known) > 10
    known |= set(re.findall(r'"(dynasor_[a-z_]+)"', told))
    assert listed == known


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path):
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", FENCE.sub("", path.read_text()))
    here = [each for each in targets if not re.match(r"[a-z]+:", each)]
    assert not [each for each in here if not (path.parent / each).exists()]


def test_targets_of_make_are_there():
    known = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        (path.name, name)
        for path in PAGES
        for name in re.findall(r"(?:`|^)make ([a-z]+)", path.read_text(), re.MULTILINE)
    }
    assert named
    assert not [each for each in named if each[1] not in known]
