"""``python -m tests.support.two_nodes FOLDER``: a Ray cluster of two nodes on this machine, each with its own folder.

Prints its address. A line on stdin kills the second node; the end of stdin ends all.
"""

import os
import sys
from pathlib import Path

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

from ray.cluster_utils import Cluster


def main(folder: Path) -> None:
    nodes = {
        name: {"num_cpus": 1, "include_dashboard": False, "env_vars": {"BRAINSEG_NODE_FOLDER": str(folder / name)}}
        for name in ("first", "second")
    }
    cluster = Cluster(initialize_head=True, head_node_args=nodes["first"])
    second = cluster.add_node(**nodes["second"])
    cluster.wait_for_nodes()
    print(cluster.address, flush=True)
    if sys.stdin.readline():
        cluster.remove_node(second, allow_graceful=False)
        sys.stdin.read()
    cluster.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
