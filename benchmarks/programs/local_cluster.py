"""A script with a ``LocalCluster``, as a user writes it: COUNT commands, each writing a file.

Run as ``python local_cluster.py COUNT DIRECTORY``; prints the seconds from the first submission
to the last result, so without the cluster's start.
"""

from __future__ import annotations

import subprocess
import sys
import time

from distributed import Client, LocalCluster


def _write(path: str) -> None:
    subprocess.run(["sh", "-c", f"echo x > {path}"], check=True)


if __name__ == "__main__":
    count, directory = int(sys.argv[1]), sys.argv[2]
    with LocalCluster() as cluster, Client(cluster) as client:
        begun = time.perf_counter()
        client.gather(client.map(_write, [f"{directory}/{number}" for number in range(count)]))
        print(time.perf_counter() - begun)
