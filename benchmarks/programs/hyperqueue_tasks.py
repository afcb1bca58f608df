"""HyperQueue, server and worker in this process: COUNT commands, each writing a file.

Run as ``python hyperqueue_tasks.py COUNT DIRECTORY``; prints the seconds from the submission on
the live server to the last file. The files are counted because its own wait looks once a second.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time

from hyperqueue import Job, LocalCluster  # type: ignore[import-not-found]

_TICK = 0.02


def _main(count: int, directory: str) -> None:
    # Its interface takes the path of its files as text, whatever its annotations say.
    with tempfile.TemporaryDirectory() as place, LocalCluster(place) as cluster:
        cluster.start_worker()
        client = cluster.client()
        begun = time.perf_counter()
        job = Job()
        for number in range(count):
            command = ["sh", "-c", f"echo x > {directory}/{number}"]
            job.program(command, stdout=None, stderr=None)
        client.submit(job)
        while len(os.listdir(directory)) < count:
            time.sleep(_TICK)
        print(time.perf_counter() - begun)


if __name__ == "__main__":
    _main(int(sys.argv[1]), sys.argv[2])
