"""A Ray cluster of two nodes on the loopback interface, for benchmarks and tests."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import machine  # noqa: F401

from threshold_search.ray_connection import (
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


@contextlib.contextmanager
def two_nodes() -> Iterator[tuple[str, Callable[[], None]]]:
    """Start a cluster; yield its address and what kills its second node and starts another.

    All that Ray leaves on disk is in a temporary folder.
    """
    with started_cluster() as cluster:
        nodes = [add_node(cluster)]

        def kill_a_node() -> None:
            cluster.remove_node(nodes.pop(), allow_graceful=False)
            nodes.append(add_node(cluster))

        yield cluster.address, kill_a_node


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
