"""The manifests of docs/deploy, by the schemas of those who read them."""

import json
import tomllib
from importlib.resources import files
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml

from dynasor.config import Config, load_config

COUNT = {"type": "integer", "minimum": 0}
START = {"type": "object", "additionalProperties": {"type": "string"}}
POD = {"type": "object", "required": ["spec"]}  # by the schema of Kubernetes


def fields(required, **known):
    """An object with these fields, all of them or some, and no others."""
    needed = list(known) if required is ... else required
    return {
        "type": "object",
        "properties": known,
        "required": needed,
        "additionalProperties": False,
    }


RAY_SERVICE = fields(
    ...,
    serveConfigV2={"type": "string"},
    rayClusterConfig=fields(
        ["headGroupSpec"],
        enableInTreeAutoscaling={"type": "boolean"},
        gcsFaultToleranceOptions=fields(["redisAddress"], redisAddress={"type": "string"}),
        headGroupSpec=fields(..., rayStartParams=START, template=POD),
        workerGroupSpecs={
            "type": "array",
            "items": fields(
                ...,
                groupName={"type": "string"},
                replicas=COUNT,
                minReplicas=COUNT,
                maxReplicas=COUNT,
                rayStartParams=START,
                template=POD,
            ),
        },
    ),
)
"""Those fields of KubeRay's RayService (ray.io/v1) that are used here, with their types."""
DEPLOY = Path(__file__).parents[2] / "docs" / "deploy"


def compose():
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())


def kuberay():
    return list(yaml.safe_load_all((DEPLOY / "kuberay.yaml").read_text()))


def check_pod(template, name):
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, **template}
    kubernetes_validate.validate(pod, "1.34", strict=True)


def test_the_compose_file_is_one():
    schema = json.loads(
        files("check_jsonschema").joinpath("builtin_schemas/vendor/compose-spec.json").read_text()
    )
    jsonschema.validate(compose(), schema)
    broken = compose()
    broken["services"]["dynasor"]["prots"] = []
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, schema)


def test_the_settings_of_the_compose_file_are_ours():
    service = compose()["services"]["dynasor"]
    config = load_config(environment=service["environment"])
    assert config.engine.gang_hints
    assert config.engine.max_running == 256


def test_the_pods_and_what_is_beside_them_are_what_kubernetes_takes():
    *plain, service = kuberay()
    for each in plain:
        kubernetes_validate.validate(each, "1.34", strict=True)
    cluster = service["spec"]["rayClusterConfig"]
    host, port = cluster["gcsFaultToleranceOptions"]["redisAddress"].split(":")
    (redis,) = [each for each in plain if each["kind"] == "Service"]
    assert (redis["metadata"]["name"], redis["spec"]["ports"][0]["port"]) == (host, int(port))
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        check_pod(group["template"], "pod")
    broken = cluster["headGroupSpec"]["template"]
    broken["spec"]["containers"][0]["imgae"] = "x"
    with pytest.raises(kubernetes_validate.ValidationError):
        check_pod(broken, "pod")


def test_the_fields_of_the_manifest_are_kuberays():
    *_, service = kuberay()
    assert set(service) == {"apiVersion", "kind", "metadata", "spec"}
    assert (service["apiVersion"], service["kind"]) == ("ray.io/v1", "RayService")
    jsonschema.validate(service["spec"], RAY_SERVICE)
    service["spec"]["rayClusterConfig"]["headGroupSpec"]["rayStartParams"]["num-cpus"] = 0
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(service["spec"], RAY_SERVICE)


def test_the_application_of_the_manifest_is_what_serve_takes():
    settings, *_, service = kuberay()
    schema = pytest.importorskip("ray.serve.schema").ServeDeploySchema
    application = schema.model_validate(yaml.safe_load(service["spec"]["serveConfigV2"]))
    (only,) = application.applications
    module, function = only.import_path.split(":")
    source = (DEPLOY.parents[1] / (module.replace(".", "/") + ".py")).read_text()
    assert f"\ndef {function}(arguments: Mapping[str, str])" in source
    config = Config.model_validate(tomllib.loads(settings["data"]["dynasor.toml"]))
    workers = service["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]
    assert workers["minReplicas"] == config.cluster.min_replicas
    assert workers["maxReplicas"] == config.cluster.most
    folder, name = only.args["config"].rsplit("/", 1)
    assert name in settings["data"]
    mounts = workers["template"]["spec"]["containers"][0]["volumeMounts"]
    assert folder in [mount["mountPath"] for mount in mounts]
