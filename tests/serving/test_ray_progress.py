"""What is told of an application that has not yet begun, without a cluster."""

from types import SimpleNamespace

import pytest


def test_progress_names_what_runs_and_what_is_waited_for():
    pytest.importorskip("ray")
    from ray.serve.schema import DeploymentStatusOverview, DeploymentStatusTrigger

    from serving.ray_app import progress

    def deployment(states, message=""):
        trigger = DeploymentStatusTrigger.UNSPECIFIED
        return DeploymentStatusOverview("UPDATING", trigger, states, message)

    engines = deployment({"RUNNING": 1, "STARTING": 1}, "needs\n 1 GPU")
    both = SimpleNamespace(deployments={"EngineReplica": engines, "Endpoint": deployment({})})
    told = "EngineReplica: 1 running, 1 starting (needs 1 GPU); Endpoint: none yet"
    assert progress(both) == told
    assert progress(None) == "starting Serve"


@pytest.mark.parametrize("address", ["foo", "foo:", ":6379", "host:0", "host:99999"])
def test_what_is_no_address_is_refused_before_ray_tries_it(address):
    pytest.importorskip("ray")
    from dynasor.config import load_config
    from dynasor.errors import ConfigError
    from serving.ray_app import remove

    with pytest.raises(ConfigError, match="--address"):
        remove(load_config(environment={}), address)


def test_an_address_where_nobody_answers_is_named():
    pytest.importorskip("ray")
    import socket

    from dynasor.config import load_config
    from dynasor.errors import EngineError
    from serving.ray_app import remove

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(EngineError, match=f"127.0.0.1:{port}"):
        remove(load_config(environment={}), f"127.0.0.1:{port}")


def test_a_cluster_that_does_not_begin_is_one_line(monkeypatch):
    """Ray raises a bare exception where a node is too slow to start, which nobody can order here."""
    ray = pytest.importorskip("ray")
    from dynasor.config import load_config
    from dynasor.errors import EngineError
    from serving.keys import Keys
    from serving.ray_app import deploy

    def init(**_):
        raise Exception("The current node\n timed out")  # as Ray does

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(EngineError, match=r"^Ray at 'local' cannot serve it: .*node timed out$"):
        deploy(load_config(environment={}), Keys([]), None)


def test_a_cluster_that_may_ask_for_a_token_says_how_to_give_it(monkeypatch):
    import socket

    ray = pytest.importorskip("ray")
    from dynasor.config import load_config
    from dynasor.errors import EngineError
    from serving.ray_app import remove

    def init(**_):
        raise ConnectionError("Failed to connect to Ray cluster")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as cluster:
        address = f"127.0.0.1:{cluster.getsockname()[1]}"
        with pytest.raises(EngineError, match="set RAY_AUTH_MODE=token"):
            remove(load_config(environment={}), address)
