"""A Ray cluster of two nodes on the loopback interface, for benchmarks and tests."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from typing import Any

import machine  # noqa: F401

from threshold_search.executors.ray_connection import (
    LOOPBACK,
    ON_LOOPBACK,
    PATIENT,
    QUIET,
    STORE_BYTES,
    patient_start,
)

NODE = {
    "node_ip_address": LOOPBACK,
    "num_cpus": 1,
    "object_store_memory": STORE_BYTES,
    "include_log_monitor": False,  # nobody reads the logs
}


class TwoNodes:
    """A cluster of two nodes, of which the second can be killed."""

    def __init__(self, cluster: Any) -> None:
        """Add the second node to a ``ray.cluster_utils.Cluster`` of one."""
        self._cluster, self._second = cluster, add_node(cluster)
        self.address: str = cluster.address

    @property
    def second_raylet(self) -> int:
        """The process whose children are the workers of the second node."""
        (raylet,) = self._second.all_processes["raylet"]
        return int(raylet.process.pid)

    def replace_second(self) -> None:
        """Kill the second node and start another one."""
        self._cluster.remove_node(self._second, allow_graceful=False)
        self._second = add_node(self._cluster)


@contextlib.contextmanager
def two_nodes() -> Iterator[TwoNodes]:
    """Start a cluster of two nodes; all that Ray leaves on disk is in a temporary folder."""
    with started_cluster() as cluster:
        yield TwoNodes(cluster)


def add_node(cluster: Any, **options: Any) -> Any:
    """Add a node of one CPU to a cluster and return it."""
    with patient_start():
        return cluster.add_node(**NODE, **options)


@contextlib.contextmanager
def started_cluster() -> Iterator[Any]:
    """Start a cluster of one node, a ``ray.cluster_utils.Cluster``, and end it."""
    os.environ.update(QUIET | ON_LOOPBACK | PATIENT)
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        os.environ["RAY_TMPDIR"] = folder  # of this process and of what it starts
        from ray.cluster_utils import Cluster

        head = {**NODE, "include_dashboard": False, "no_monitor": True}
        with patient_start():
            cluster = Cluster(initialize_head=True, head_node_args=head)
        try:
            yield cluster
        finally:
            cluster.shutdown()
            del os.environ["RAY_TMPDIR"]
