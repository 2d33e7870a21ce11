"""How the processes of one run find each other, what they tell each other beside the arrays, and how they part."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from typing import NamedTuple

import jax
from jax._src import distributed  # the key-value store has no public name; Orbax uses it the same way

from rgjax.errors import UserError
from rgjax.parallel import gpus

# Where a process finds how many there are and which it is; the first that is set counts.
COUNTS = ("RGJAX_PROCESSES", "SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")
NUMBERS = ("RGJAX_PROCESS", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "JOB_COMPLETION_INDEX")
PARTING = ("Gloo", "NCCL", "oordination service", "Connection reset", "Connection closed", "Socket closed", "heartbeat", "tasks are unhealthy")
_FAREWELL = 3.0  # seconds that the first process stays after a failure: the others end where it is gone, with no word of their own


class Place(NamedTuple):
    """A process among several. `coordinator` is host:port, '' where JAX finds it; `devices` are local numbers, None for all."""

    coordinator: str
    processes: int
    process: int
    devices: list[int] | None


def announced(env: Mapping[str, str]) -> Place | None:
    """What the environment says of a cluster, None where this process is alone; raises UserError where it contradicts itself.

    RGJAX_COORDINATOR (host:port) names the first process; RGJAX_PROCESSES and RGJAX_PROCESS say how many there are and which this is,
    unless SLURM (srun), Open MPI (mpirun) or the index of a Kubernetes job do. Under srun, and mpirun of Open MPI 4, JAX finds the
    coordinator by itself.
    """
    coordinator = env.get("RGJAX_COORDINATOR", "")
    stray = [name for name in ("RGJAX_PROCESSES", "RGJAX_PROCESS") if env.get(name)]
    if not coordinator and stray:
        raise UserError(f"{stray[0]} is set and RGJAX_COORDINATOR is not; set it to host:port of the first process, or unset {stray[0]}.")
    counted, numbered = (next((name for name in names if env.get(name)), "") for names in (COUNTS, NUMBERS))
    if not coordinator and (not counted or _whole(env, counted) < 2):
        return None
    if not counted or not numbered:
        missing = f"{COUNTS[0]} (how many processes)" if not counted else f"{NUMBERS[0]} (which process this is, from 0)"
        raise UserError(f"{'RGJAX_COORDINATOR' if coordinator else counted} is set and {missing} is missing; set it.")
    count, mine = _whole(env, counted), _whole(env, numbered)
    if not 0 <= mine < count:
        raise UserError(f"{numbered}={mine} is none of the {count} processes of {counted}; they are numbered from 0 to {count - 1}.")
    if coordinator and not coordinator.rpartition(":")[2].isdigit():
        raise UserError(f"RGJAX_COORDINATOR={coordinator} names no port; write host:port, as node1:9876.")
    if counted.startswith("OMPI") and not coordinator and "OMPI_MCA_orte_hnp_uri" not in env:
        raise UserError("This Open MPI does not say where the first process is; add -x RGJAX_COORDINATOR=HOST:9876 to mpirun, the first host.")
    if counted.startswith("SLURM") and env.get("SLURM_NTASKS", env[counted]) != env[counted]:
        raise UserError(f"SLURM_NTASKS={env['SLURM_NTASKS']} contradicts {counted}={env[counted]}; give srun the same --ntasks as the job.")
    return Place(coordinator, count, mine, _devices(env))


def _devices(env: Mapping[str, str]) -> list[int] | None:
    """JAX takes one device per process under a scheduler: that is right where a process has one. Where it sees only its own it has all of them, and
    else its share of the node's."""
    local = next((env[name] for name in ("SLURM_LOCALID", "OMPI_COMM_WORLD_LOCAL_RANK") if name in env), "")
    tasks = env.get("SLURM_STEP_TASKS_PER_NODE", env.get("OMPI_COMM_WORLD_LOCAL_SIZE", "")).partition("(")[0]
    seen = gpus.visible(env) or [""] * int(env.get("SLURM_GPUS_ON_NODE") or 0)
    own = env.get("SLURM_GPUS_PER_TASK", "").rpartition(":")[2] == str(len(seen))
    if not local:
        return None
    if tasks == "1" or len(seen) == 1 or own:
        return list(range(len(seen))) or None
    return (gpus.shared(range(len(seen)), int(tasks), int(local)) if tasks.isdigit() else []) or [int(local)]


def _whole(env: Mapping[str, str], name: str) -> int:
    try:
        return int(env[name])
    except ValueError:
        raise UserError(f"{name}={env[name]} is no whole number; set it right.") from None


def alone(compilation_cache: str = "", optimization_level: str = "UNKNOWN") -> None:
    """As `start`, for work that one process does: where the environment announces several, the first does it and the others end here."""
    _settle(compilation_cache, optimization_level)
    place = None if several() else announced(os.environ)
    if place and place.process:
        print(f"process {place.process} of {place.processes} has nothing to do: the first one does it all", file=sys.stderr)
        raise SystemExit(0)


def _settle(compilation_cache: str, optimization_level: str) -> None:
    if compilation_cache:
        jax.config.update("jax_compilation_cache_dir", os.path.expanduser(compilation_cache))
    if optimization_level != "UNKNOWN":
        jax.config.update("jax_optimization_level", optimization_level)


def start(compilation_cache: str = "", optimization_level: str = "UNKNOWN") -> None:
    """Joins the cluster if the environment announces one, and tells JAX where compiled programs are kept and how hard to optimize them.

    Raises UserError where the cluster can't be joined.
    """
    _settle(compilation_cache, optimization_level)
    place = announced(os.environ)
    if place is None or jax.distributed.is_initialized():
        return
    jax.config.update("jax_enable_preemption_service", False)  # it would take SIGTERM for itself, unheard until the loop begins
    if "cpu" in (jax.config.jax_platforms or "cpu"):
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        if place.coordinator:
            jax.distributed.initialize(
                place.coordinator, place.processes, place.process, local_device_ids=place.devices, cluster_detection_method="deactivate"
            )
        else:
            jax.distributed.initialize(local_device_ids=place.devices)
    except (RuntimeError, ValueError) as error:
        where = place.coordinator or "the first process"
        raise UserError(
            f"Process {place.process} of {place.processes} did not meet the others at {where} ({str(error).splitlines()[0][:160]}); check that all "
            "were started and that the port is free and reachable."
        ) from None


def several() -> bool:
    """Whether this process has joined others."""
    return distributed.global_state.client is not None


def parted(error: Exception) -> str:
    """A sentence where `error` says that another process is gone, '' else."""
    if not several() or not any(words in str(error) for words in PARTING):
        return ""
    said = next((line for line in str(error).splitlines() if line.strip()), "")[:160]
    return (
        f"Another process of this run is gone ({said}), so process {jax.process_index()} ends too; its own output says why, and the same command "
        "goes on from the last checkpoint."
    )


def leave(code: int) -> None:
    """Ends this process at once after a failure, where others would else wait for it, and it for them; does nothing where it is alone."""
    if not several():
        return
    sys.stdout.flush()
    sys.stderr.flush()
    if distributed.global_state.service is not None:
        time.sleep(_FAREWELL)
    os._exit(code)


def tell(topic: str, turn: int, text: str) -> dict[int, str]:
    """Tells the others something without waiting for them; returns, in the first process, what all had told in the turn before."""
    client, mine = distributed.global_state.client, distributed.global_state.process_id
    client.key_value_set(f"rgjax/{topic}/{turn}/{mine}", text)
    if mine or not turn:
        return {}
    before = f"rgjax/{topic}/{turn - 1}/"
    found = {int(key.rpartition("/")[2]): value for key, value in client.key_value_dir_get(before)}
    client.key_value_delete(before)
    return found
