"""What Ray and vLLM are told of a replica, by the configuration."""

import pytest

from dynasor.config import load_config


def config_of(**cluster):
    engine = {"tensor_parallel": 2, "pipeline_parallel": 3, "max_running": 48}
    return load_config(overrides={"engine": engine, "cluster": cluster}, environment={})


def test_a_replica_of_several_gpus_reserves_them_and_runs_so_many_requests(monkeypatch):
    pytest.importorskip("ray")
    from serving.ray_app import _engine_options

    # There is no GPU here: as where vLLM for GPUs is installed.
    monkeypatch.setattr("dynasor.engines.vllm.is_installed", lambda name: name == "vllm")
    options = _engine_options(config_of(min_replicas=2))
    assert options["ray_actor_options"]["num_gpus"] == 6
    assert options["request_router_config"].request_router_kwargs == {"places": 48}
    assert options["num_replicas"] == 2
    scaled = _engine_options(config_of(min_replicas=2, max_replicas=8))["autoscaling_config"]
    assert (scaled.min_replicas, scaled.max_replicas) == (2, 8)


def test_vllm_takes_the_ways_to_split_a_model():
    arguments = pytest.importorskip("vllm.engine.arg_utils")
    from dynasor.engines.build import build_engine

    asked = arguments.AsyncEngineArgs(**build_engine(config_of().engine)._arguments())
    assert (asked.tensor_parallel_size, asked.pipeline_parallel_size) == (2, 3)
    assert asked.max_num_seqs == 48
