"""The engine's own scheduler and worker, started by hand at once, with TLS, to their first task.

Run as ``python two_programs.py KEY DIRECTORY``, where KEY is a file with a key and certificate.
Both programs are started without dashboard and nanny, which is the quickest they can be had; the
engine is imported here meanwhile. Prints ``first`` when the first command has run, and then keeps
both until its input ends.
"""

from __future__ import annotations

import os
import subprocess
import sys


def _write(path: str) -> None:
    subprocess.run(["sh", "-c", f"echo x > {path}"], check=True)


def _main(key: str, directory: str) -> None:
    place = os.path.join(directory, "scheduler.json")
    tls = [f"--tls-{name}={key}" for name in ("ca-file", "cert", "key")]
    common = [*tls, "--host=127.0.0.1", "--no-dashboard", "--dashboard-address=127.0.0.1:0"]
    common += [f"--scheduler-file={place}"]
    python = (sys.executable, "-m")
    programs = [
        subprocess.Popen(
            [*python, f"distributed.cli.dask_{name}", *common, *options], cwd=directory
        )
        for name, options in (("scheduler", ("--port=0",)), ("worker", ("--no-nanny",)))
    ]
    try:
        from distributed import Client, Security

        security = Security(
            tls_ca_file=key, tls_client_cert=key, tls_client_key=key, require_encryption=True
        )
        with Client(scheduler_file=place, security=security) as client:
            client.submit(_write, os.path.join(directory, "out")).result()
            print("first", flush=True)
            sys.stdin.read()
    finally:
        for program in reversed(programs):
            program.terminate()
            program.wait()


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2])
