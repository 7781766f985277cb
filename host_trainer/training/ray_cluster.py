"""Opens Ray for a while: the cluster that RAY_ADDRESS names, or this machine."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from edge_cl.errors import EdgeError, EngineError


@contextmanager
def ray_cluster(cpus: int, environment: Mapping[str, str]) -> Iterator[Any]:
    """Yield the module `ray`, connected; what was connected before stays so.

    Args:
        cpus: that this machine offers, where no cluster is named.
        environment: of its workers then.

    Raises:
        EdgeError: what a task or actor ended with, if it was one.
        EngineError: Ray is not installed, or something else failed in it.
    """
    try:
        import ray
    except ModuleNotFoundError as error:
        raise EngineError("--engine ray needs Ray: `pip install ray`, or use --engine processes") from error
    mine = not ray.is_initialized()
    if mine:
        _open(ray, cpus, environment)
    try:
        yield ray
    except ray.exceptions.RayError as error:
        if isinstance(cause := getattr(error, "cause", None), EdgeError):
            raise cause from error
        reason = str(error).strip().rpartition("\n")[2]
        raise EngineError(f"a part on Ray failed ({reason}): run it again to go on") from error
    finally:
        if mine:
            ray.shutdown()


def _open(ray: Any, cpus: int, environment: Mapping[str, str]) -> None:
    if "RAY_ADDRESS" in os.environ:
        ray.init(log_to_driver=False)
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault(
        "RAY_worker_niceness", "0"
    )  # Ray's own 15 lets anything else here starve its workers
    ray.init(
        num_cpus=cpus,
        include_dashboard=False,
        log_to_driver=False,
        _node_ip_address="127.0.0.1",
        runtime_env={"env_vars": {"TF_CPP_MIN_LOG_LEVEL": "3", **environment}},
    )
