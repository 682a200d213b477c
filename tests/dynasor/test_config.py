"""Configuration: precedence, and errors that name key, value and what is allowed."""

import pytest

from dynasor.commands.options import overrides
from dynasor.config import load_config
from dynasor.errors import ConfigError


def write(tmp_path, text):
    path = tmp_path / "dynasor.toml"
    path.write_text(text)
    return path


def test_command_line_beats_environment_beats_file(tmp_path):
    path = write(tmp_path, "[algorithm]\nsamples = 4\ntemperature = 0.5\nmax_tokens = 99\n")
    environment = {"DYNASOR_ALGORITHM__SAMPLES": "8", "DYNASOR_ALGORITHM__TEMPERATURE": "0.7"}
    config = load_config(path, {"algorithm": {"samples": 12, "temperature": None}}, environment)
    assert config.algorithm.samples == 12
    assert config.algorithm.temperature == 0.7
    assert config.algorithm.max_tokens == 99
    assert config.allocator.wave == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[algorithm]\nsample = 4\n", "algorithm.sample: no such setting; there are name, samples"),
        ("[motor]\nx = 1\n", "motor: no such setting; there are engine, algorithm, allocator"),
        ("[algorithm]\nsamples = 0\n", "algorithm.samples = 0: .*greater than or equal to 1"),
        ("[algorithm]\nsamples = 'many'\n", "algorithm.samples = 'many': .*integer"),
        ("[engine]\nkind = 'gpu'\n", "engine.kind = 'gpu': .*'vllm', 'openai' or 'replay'"),
        ("[allocator]\nrule = 'luck'\n", "allocator.rule = 'luck': .*fixed"),
        ("[algorithm]\nname = 'agentwrite'\n", "algorithm.name = 'agentwrite': .*`dynasor write`"),
        ("[algorithm]\nname = 'chat'\n", "algorithm.name = 'chat': .*samples = 1"),
        ("[algorithm]\nname = ['chat']\n", "algorithm.name = ..chat..: "),
        ("[algorithm]\nextractor = 'x'\n", "algorithm.extractor = 'x': .*boxed"),
        ("samples = 4\n", "'samples' must be a section"),
        ("[algorithm\n", "not valid TOML"),
    ],
)
def test_a_wrong_file_is_one_clear_error(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        load_config(write(tmp_path, text), environment={})


def test_files_of_the_promises_are_beside_the_file_that_names_them(tmp_path):
    text = '[slo]\ncalibration = "c.json"\n[slo.watch]\nfile = "/var/e.json"\n'
    slo = load_config(write(tmp_path, text), environment={}).slo
    assert (slo.calibration, slo.watch.file) == (str(tmp_path / "c.json"), "/var/e.json")
    here = load_config(environment={"DYNASOR_SLO__CALIBRATION": "c.json"})
    assert here.slo.calibration == "c.json"


def test_a_wrong_variable_names_its_key():
    with pytest.raises(ConfigError, match=r"allocator.wave = '0'"):
        load_config(environment={"DYNASOR_ALLOCATOR__WAVE": "0"})


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read .*nowhere.toml"):
        load_config(tmp_path / "nowhere.toml", environment={})


def test_all_errors_are_told_at_once(tmp_path):
    path = write(tmp_path, "[algorithm]\nsamples = 0\n[allocator]\nwave = 0\n")
    with pytest.raises(ConfigError, match=r"algorithm\.samples.*allocator\.wave"):
        load_config(path, environment={})


def test_what_is_added_to_a_question_depends_on_the_model_and_not_on_the_suite():
    """The embedded model has learnt to box its answer, and answers nonsense to other words."""
    assert load_config().instruction == ""
    other = load_config(overrides={"engine": {"model": "Qwen/Qwen2.5-1.5B-Instruct"}})
    assert "boxed" in other.instruction
    server = load_config(overrides={"engine": {"kind": "openai"}})
    assert "boxed" in server.instruction
    own = load_config(overrides={"algorithm": {"instruction": "Be brief."}})
    assert own.instruction == "Be brief."


def test_sections_below_the_algorithm_come_from_everywhere_and_none_hides_another(tmp_path):
    file = tmp_path / "c.toml"
    file.write_text("[algorithm.search]\nchildren = 2\ndepth = 9\n")
    config = load_config(
        file,
        {"algorithm": {"search": {"depth": "7"}, "name": None}},
        {"DYNASOR_ALGORITHM__SEARCH__STEP_TOKENS": "33"},
    )
    search = config.algorithm.search
    assert (search.children, search.depth, search.step_tokens) == (2, 7, 33)


def test_a_wrong_key_deep_down_is_named_with_those_that_there_are():
    with pytest.raises(
        ConfigError, match=r"algorithm\.cot\.efort: no such setting; there are effort"
    ):
        load_config(overrides={"algorithm": {"cot": {"efort": "mid"}}}, environment={})


@pytest.mark.parametrize("text", ["wave=4", "allocator.wave", ".wave=4", "allocator.=4"])
def test_a_setting_on_the_command_line_has_a_section_and_a_key(text):
    with pytest.raises(ConfigError, match=r"must be SECTION\.KEY=VALUE"):
        overrides(settings=[text])


def test_settings_on_the_command_line_go_before_other_options():
    given = overrides(samples=3, settings=["algorithm.samples=5", "algorithm.cot.window=4"])
    config = load_config(overrides=given, environment={})
    assert (config.algorithm.samples, config.algorithm.cot.window) == (5, 4)


def test_levels_of_effort_that_are_not_given_keep_their_meaning(tmp_path):
    file = tmp_path / "c.toml"
    file.write_text("[server.effort.low]\nsamples = 3\n")
    effort = load_config(file, environment={}).server.effort
    assert effort["low"].samples == 3
    assert effort["none"].algorithm == "none"
    assert effort["high"].samples == 32


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[server.effort.low]\nfoo = 1", "server.effort.low.foo: no such setting"),
        ("[server.effort.huge]\nsamples = 1", "server.effort.huge"),
        ("[server.effort.low]\nrule = 'magic'", "server.effort.low.rule"),
        ("[server]\nport = 99999", "server.port"),
    ],
)
def test_a_wrong_server_section_is_told_by_name(tmp_path, text, problem):
    file = tmp_path / "c.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=problem):
        load_config(file, environment={})


def test_a_cluster_has_at_most_as_many_replicas_as_at_least_unless_told():
    assert load_config(overrides={"cluster": {"min_replicas": 3}}, environment={}).cluster.most == 3
    bounds = {"min_replicas": 3, "max_replicas": 8}
    assert load_config(overrides={"cluster": bounds}, environment={}).cluster.most == 8
    with pytest.raises(ConfigError, match=r"cluster.max_replicas = 2: must be .* which is 3"):
        load_config(overrides={"cluster": {**bounds, "max_replicas": 2}}, environment={})
