"""What the files for Kubernetes rely on; and, where its schemas are at hand, that they fit them.

With KubeRay's definitions of its resources every field is checked, as the API server would:

    git clone --depth 1 --branch v1.6.2 https://github.com/ray-project/kuberay
    SCHN_RAY_KUBERAY_CRDS=kuberay/ray-operator/config/crd/bases pytest tests/test_deploy.py
"""

import copy
import json
import os
import re
import shlex
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from typer.main import get_command

from schn_ray.cli import app

ROOT = Path(__file__).parents[1]
CRDS = os.environ.get("SCHN_RAY_KUBERAY_CRDS")
GROWS_TO = "SCHN_RAY_GROWS_TO"


def documents(name: str) -> dict[str, Any]:
    """Kind -> document of a file."""
    return {d["kind"]: d for d in yaml.safe_load_all((ROOT / "deploy" / name).read_text())}


@pytest.fixture
def cluster() -> dict[str, Any]:
    return documents("raycluster.yaml")["RayCluster"]


@pytest.fixture
def job() -> dict[str, Any]:
    return documents("rayjob.yaml")["RayJob"]


def groups(cluster: dict[str, Any]) -> list[dict[str, Any]]:
    return [cluster["spec"]["headGroupSpec"], *cluster["spec"]["workerGroupSpecs"]]


def containers(cluster: dict[str, Any]) -> list[dict[str, Any]]:
    return [c for group in groups(cluster) for c in group["template"]["spec"]["containers"]]


def test_one_image_for_all(cluster: dict[str, Any]) -> None:
    launcher = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    images = {container["image"] for container in containers(cluster)}
    assert images == {launcher["docker"]["image"]} == {f"schn-ray:{version('schn-ray')}"}
    assert cluster["spec"]["rayVersion"] == version("ray")
    locked = re.search(r"^ray==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert locked is not None
    assert locked[1] == version("ray")


def test_the_head_does_no_work(cluster: dict[str, Any]) -> None:
    head, *workers = groups(cluster)
    assert head["rayStartParams"]["num-cpus"] == "0"
    for worker in workers:
        assert (worker["replicas"], worker["minReplicas"]) == (0, 0) < (0, worker["maxReplicas"])
        assert not worker["rayStartParams"]  # Ray counts what the container may use


def test_nothing_answers_without_the_token(cluster: dict[str, Any]) -> None:
    # in every container, the autoscaler's and the jobs' included
    assert cluster["spec"]["authOptions"] == {"mode": "token"}
    # an operator that does not know authOptions drops it: then the image's mode finds no token
    assert "ENV RAY_AUTH_MODE=token" in (ROOT / "Dockerfile").read_text()
    for container in containers(cluster):
        assert not [e for e in container["env"] if e["name"].startswith("RAY_AUTH")]


def test_strangers_do_not_reach_it(cluster: dict[str, Any]) -> None:
    policy = documents("raycluster.yaml")["NetworkPolicy"]["spec"]
    pods = {"matchLabels": {"ray.io/cluster": cluster["metadata"]["name"]}}
    assert policy["podSelector"] == pods
    assert policy["policyTypes"] == ["Ingress"]
    everything, dashboard = policy["ingress"]
    assert everything == {"from": [{"podSelector": pods}]}
    assert [p["port"] for p in dashboard["ports"]] == [8265]


def test_pods_are_unprivileged_and_share_the_volume(cluster: dict[str, Any]) -> None:
    for group in groups(cluster):
        pod = group["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        names = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} == names
            assert container["resources"]["requests"] == container["resources"]["limits"]


def whole_cluster(cluster: dict[str, Any]) -> dict[str, int]:
    most = {"CPU": 0, "GPU": 0}
    for group in cluster["spec"]["workerGroupSpecs"]:
        (container,) = group["template"]["spec"]["containers"]
        limits = container["resources"]["limits"]
        most["CPU"] += group["maxReplicas"] * int(limits["cpu"])
        most["GPU"] += group["maxReplicas"] * int(limits.get("nvidia.com/gpu", 0))
    return most


def test_jobs_know_what_the_cluster_grows_to(cluster: dict[str, Any]) -> None:
    for container in containers(cluster):
        (said,) = [e["value"] for e in container["env"] if e["name"] == GROWS_TO]
        assert json.loads(said) == whole_cluster(cluster)


def test_jobs_of_the_launcher_s_cluster_know_it_too() -> None:
    launcher = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    types = launcher["available_node_types"].values()
    most = {
        name: sum(kind["resources"].get(name, 0) * kind.get("max_workers", 0) for kind in types)
        for name in ("CPU", "GPU")
    }
    assert launcher["max_workers"] >= sum(kind.get("max_workers", 0) for kind in types)
    for command in (launcher["head_start_ray_commands"], launcher["worker_start_ray_commands"]):
        words = shlex.split(next(line for line in command if "ray start" in line))
        (said,) = [w.removeprefix(f"{GROWS_TO}=") for w in words if w.startswith(GROWS_TO)]
        assert json.loads(said) == most


def test_the_job_is_a_verb_with_options_that_there_are(job: dict[str, Any]) -> None:
    python, dash_m, package, *words = shlex.split(job["spec"]["entrypoint"])
    assert (python, dash_m, package) == ("python", "-m", "schn_ray")
    parsed = parse(words)
    assert (parsed["store"], parsed["workers"]) == ("/data/store", "1:4")
    with pytest.raises(Exception, match="--wurkers"):
        parse([*words, "--wurkers", "2"])


def parse(words: list[str]) -> dict[str, Any]:
    """Parse a command line of ours, and run nothing."""
    group = get_command(app)
    with group.make_context("schn-ray", words, resilient_parsing=False) as context:
        name, verb, rest = group.resolve_command(context, words)  # type: ignore[attr-defined]
        return dict(verb.make_context(name, list(rest), parent=context).params)


def test_a_job_on_a_cluster_of_all_is_not_tried_again(
    cluster: dict[str, Any], job: dict[str, Any]
) -> None:
    assert job["spec"]["clusterSelector"] == {"ray.io/cluster": cluster["metadata"]["name"]}
    # before each of these, the operator deletes the cluster, the selected one too
    assert not {"backoffLimit", "suspend", "shutdownAfterJobFinishes"} & job["spec"].keys()


# --- against KubeRay's schemas

# the fields that KubeRay's published types have (v1), as far as ours reach, without pods
_TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
_POD = {"type": "object", "x-kubernetes-preserve-unknown-fields": True, "properties": {}}
_COUNT, _TEXT = {"type": "integer"}, {"type": "string"}


def _object(required: tuple[str, ...] = (), **fields: Any) -> dict[str, Any]:
    return {"type": "object", "properties": fields, "required": list(required)}


_HEAD = _object(("template",), rayStartParams=_TEXTS, template=_POD)
_WORKER = _object(
    ("groupName", "maxReplicas", "minReplicas", "template"),
    **dict.fromkeys(("replicas", "minReplicas", "maxReplicas"), _COUNT),
    **{"groupName": _TEXT, "rayStartParams": _TEXTS, "template": _POD},
)
_OURS = {
    "RayCluster": _object(
        ("headGroupSpec",),
        rayVersion=_TEXT,
        authOptions=_object(mode={"enum": ["disabled", "token"]}),
        enableInTreeAutoscaling={"type": "boolean"},
        autoscalerOptions=_object(idleTimeoutSeconds=_COUNT),
        headGroupSpec=_HEAD,
        workerGroupSpecs={"type": "array", "items": _WORKER},
    ),
    "RayJob": _object(entrypoint=_TEXT, clusterSelector=_TEXTS),
}


@pytest.fixture(params=["fields as published", "definitions of KubeRay"])
def definitions(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "definitions of KubeRay":
        if CRDS is None:
            pytest.skip("SCHN_RAY_KUBERAY_CRDS is not set; see the top of this file")
        return Path(CRDS)
    for kind, spec in _OURS.items():
        schema = _object(apiVersion=_TEXT, kind=_TEXT, metadata={"type": "object"}, spec=spec)
        versions = [{"name": "v1", "schema": {"openAPIV3Schema": schema}}]
        text = yaml.safe_dump({"spec": {"versions": versions}})
        (tmp_path / f"ray.io_{kind.lower()}s.yaml").write_text(text)
    return tmp_path


@pytest.mark.parametrize("name", ["raycluster.yaml", "rayjob.yaml"])
def test_fields_are_kuberay_s(definitions: Path, name: str) -> None:
    for kind, document in documents(name).items():
        if kind == "NetworkPolicy":
            continue  # of Kubernetes itself
        schema = Draft202012Validator(schema_of(definitions, kind))
        schema.validate(document)
        mistaken = copy.deepcopy(document)
        mistaken["spec"]["surprise"] = 1
        (error,) = schema.iter_errors(mistaken)
        assert "surprise" in error.message


def schema_of(folder: Path, kind: str) -> dict[str, Any]:
    definition = yaml.safe_load((folder / f"ray.io_{kind.lower()}s.yaml").read_text())
    (version,) = [v for v in definition["spec"]["versions"] if v["name"] == "v1"]
    return dict(strict(version["schema"]["openAPIV3Schema"]))


def strict(schema: Any) -> Any:
    """Refuse fields that are not in a schema: the API server drops them, without a word."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: strict(part) for name, part in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        open_ended = schema.get("x-kubernetes-preserve-unknown-fields")
        made.setdefault("additionalProperties", bool(open_ended))
    return made
