"""What is set to make vLLM fast on a CPU, and what is said about it."""

import pytest

from dynasor.engines import cpu_tuning
from dynasor.engines.cpu_tuning import has_bfloat16, tune

TINY, SMALL = 3 << 20, 1 << 30


def test_a_tiny_model_computes_in_one_thread():
    environment = {}
    tuning = tune(TINY, environment)
    assert environment["OMP_NUM_THREADS"] == "1"
    assert environment["VLLM_CPU_OMP_THREADS_BIND"] == "nobind"
    assert "1 thread for a tiny model" in tuning.line()
    assert tuning.tiny_model
    assert not tune(SMALL, {}).tiny_model


def test_threads_are_bound_unless_the_cores_are_busy(monkeypatch):
    for load, bound in ((0.0, True), (99.0, False)):
        monkeypatch.setattr(cpu_tuning.os, "getloadavg", lambda load=load: (load, load, load))
        environment = {}
        tune(SMALL, environment)
        assert (environment["VLLM_CPU_OMP_THREADS_BIND"] != "nobind") is bound
        assert "OMP_NUM_THREADS" not in environment


def test_what_the_user_has_set_is_left_alone():
    given = {"VLLM_CPU_OMP_THREADS_BIND": "0", "VLLM_CPU_KVCACHE_SPACE": "7", "LD_PRELOAD": "/x.so"}
    environment = dict(given)
    tuning = tune(TINY, environment, kv_gib=3)
    preload = environment.pop("LD_PRELOAD")
    assert preload.split(":")[0] == given.pop("LD_PRELOAD")
    assert environment == given
    assert "GiB" not in tuning.line()


def test_the_kv_cache_has_the_asked_size():
    environment = {}
    assert "3 GiB for the KV cache" in tune(TINY, environment, kv_gib=3).line()
    assert environment["VLLM_CPU_KVCACHE_SPACE"] == "3"


def test_missing_libraries_are_named_with_their_command(monkeypatch):
    monkeypatch.setattr(cpu_tuning, "_first", lambda patterns: None)
    tuning = tune(TINY, {})
    assert "apt-get install libtcmalloc-minimal4" in tuning.line()
    assert "pip install intel-openmp" in tuning.line()
    assert "LD_PRELOAD" not in tuning.environment


@pytest.mark.parametrize(
    ("flags", "weights", "dtype"),
    [
        ("avx512f avx512_bf16", SMALL, "bfloat16"),
        ("avx512f", SMALL, "float32"),
        ("avx512f", float("inf"), "bfloat16"),
    ],
)
def test_float32_where_bfloat16_is_emulated_and_it_fits(
    flags, weights, dtype, tmp_path, monkeypatch
):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor: 0\nflags: {flags}\n")
    monkeypatch.setattr(cpu_tuning, "has_bfloat16", lambda: has_bfloat16(str(cpuinfo)))
    assert tune(weights, {}).dtype == dtype


def test_without_cpuinfo_nothing_is_assumed(tmp_path):
    assert has_bfloat16(str(tmp_path / "none"))
