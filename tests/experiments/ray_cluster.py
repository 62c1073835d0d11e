"""A Ray cluster of two nodes, of one CPU and of two, in its own process: `python -m tests.experiments.ray_cluster`.

Ray forks, which a process that has started JAX must not do. Prints the cluster's address; each line that it reads adds
a node with two GPUs, as far as Ray knows, which it prints; the end of what it reads ends the cluster.
"""

import os
import sys

# Ray reads them at its import. Its workers would give way to every other process of the suite, and take minutes.
os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0", "RAY_worker_niceness": "0"}

from ray.cluster_utils import Cluster

NODE = {"num_cpus": 1, "object_store_memory": 80_000_000}

if __name__ == "__main__":
    cluster = Cluster(initialize_head=True, head_node_args=NODE | {"include_dashboard": False})
    cluster.add_node(**NODE | {"num_cpus": 2})
    print(cluster.address, flush=True)
    added = []
    for _ in sys.stdin:
        added.append(cluster.add_node(num_gpus=2, **NODE))
        print("added", flush=True)
    cluster.shutdown()
