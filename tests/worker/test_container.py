"""A recipe's container: its command line for each runtime, and what podman makes of it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lightcone.spec.output import Input, Output, Resources
from lightcone.worker.containers.container import Container, container_name, mounts
from lightcone.worker.containers.image import ContainerError, Runtime, image_name
from lightcone.worker.containers.user import docker_options, podman_options
from tests.helpers import Sandbox, wait_until
from tests.needs import do_without
from tests.run.analyses import Analysis, interrupt, output

_ME = f"{os.getuid()}:{os.getgid()}"
_GRACE = 60.0
_SOON = 45.0
_IMAGE = "localhost/lightcone-test"
_APPLETS = ("sh", "cat", "id", "sleep", "touch", "wc")


# ---- Command lines ------------------------------------------------------------------------------


def _made(tmp_path: Path, **more: Any) -> Output:
    results = tmp_path / "results" / "baseline"
    results.mkdir(parents=True)
    settings: dict[str, Any] = {
        "universe": "baseline",
        "id": "fit",
        "root": tmp_path,
        "place": str(results / "fit.txt"),
        "state": str(results / ".lightcone" / "fit"),
        "is_directory": False,
        "command": "python fit.py '$HOME'",
        "template": "",
        "container": "python:3.12",
    }
    return Output(**(settings | more))


def test_apptainer(tmp_path: Path) -> None:
    data = tmp_path.parent / f"{tmp_path.name}-data"
    data.mkdir()
    made = _made(tmp_path, inputs=(Input("raw", str(data), str(data), None),))
    scratch = tmp_path.parent
    launch = Container(Runtime.APPTAINER, "/bin/apptainer", "docker://python:3.12").launch(
        made,
        made.command,
        {"PATH": "/bin", "FOO": "1"},
        0o027,
        tmp_path,
        "lightcone-1-baseline/fit-1",
    )
    assert launch.commands is None
    script = launch.argv[-3]
    assert launch.argv == [
        "/bin/apptainer",
        "exec",
        *("--pwd", str(tmp_path)),
        *("--bind", str(tmp_path)),
        *("--bind", str(data)),
        "docker://python:3.12",
        *("/bin/sh", "-c", script, "sh", "python fit.py '$HOME'"),
    ]
    assert script.startswith("umask 027\n")
    assert scratch not in map(Path, launch.argv)


def test_apptainer_with_gpus(tmp_path: Path) -> None:
    made = _made(tmp_path, resources=Resources(gpus=1))
    container = Container(Runtime.SINGULARITY, "/bin/singularity", "tool.sif")
    argv = container.launch(made, made.command, {}, 0o022, tmp_path, "task").argv
    assert argv[:5] == ["/bin/singularity", "exec", "--pwd", str(tmp_path), "--nv"]


@pytest.mark.parametrize(
    ("runtime", "gpus"),
    [(Runtime.DOCKER, ("--gpus", "all")), (Runtime.PODMAN, ("--device", "nvidia.com/gpu=all"))],
)
def test_podman_and_docker(tmp_path: Path, runtime: Runtime, gpus: tuple[str, ...]) -> None:
    made = _made(tmp_path, resources=Resources(gpus=2))
    variables = {
        "PATH": "/bin",
        "LD_LIBRARY_PATH": "/lib",
        "TMPDIR": "/",
        "SECRET": "x y",
        "A*": "1",
    }
    launch = Container(runtime, "/bin/it", "python:3.12", ("--user", "7:8")).launch(
        made, made.command, variables, 0o002, tmp_path, "lightcone-1-baseline/fit-1"
    )
    name = "lightcone-1-baseline-fit-1"
    shared = ["--mount", "type=bind,source=/dev/shm,target=/dev/shm"]
    script = launch.argv[-3]
    assert launch.argv == [
        *("/bin/it", "run", "--rm", "--name", name, "--user", "7:8"),
        *("--workdir", str(tmp_path), "--network", "host"),
        *("--log-driver", "none", "--security-opt", "label=disable"),
        *gpus,
        *(shared if os.path.isdir("/dev/shm") else []),
        *("--mount", f"type=bind,source={tmp_path},target={tmp_path}"),
        *("--env", "SECRET", "--env", "TMPDIR"),
        *("--entrypoint", "/bin/sh", "python:3.12"),
        *("-c", script, "sh", "python fit.py '$HOME'"),
    ]
    assert launch.commands is not None
    assert launch.commands.running == ["/bin/it", "ps", "--quiet", "--filter", f"name=^{name}$"]
    assert launch.commands.exists == [*launch.commands.running, "--all"]
    assert launch.commands.kill == ["/bin/it", "kill", "--signal", "KILL", name]
    assert launch.commands.remove == ["/bin/it", "rm", "--force", "--volumes", name]
    assert launch.commands.terminate[:5] == ["/bin/it", "exec", name, "/bin/sh", "-c"]


def test_users_of_podman() -> None:
    assert podman_options(is_root=True, has_many_ids=True)[:4] == [
        "--pids-limit",
        "-1",
        "--user",
        _ME,
    ]
    assert podman_options(is_root=False, has_many_ids=True) == [
        "--userns",
        "keep-id",
        "--user",
        _ME,
    ]
    assert podman_options(is_root=False, has_many_ids=False) == ["--user", "0:0"]


def test_users_of_docker() -> None:
    groups = [word for group in os.getgroups() for word in ("--group-add", str(group))]
    assert docker_options(["name=seccomp,profile=builtin", "name=cgroupns"]) == [
        "--user",
        _ME,
        *groups,
    ]
    assert docker_options(["name=userns"])[:4] == ["--userns", "host", "--user", _ME]
    assert docker_options(["name=rootless", "name=cgroupns"]) == ["--user", "0:0"]


A, P, D = Runtime.APPTAINER, Runtime.PODMAN, Runtime.DOCKER


@pytest.mark.parametrize(
    ("declared", "runtime", "named"),
    [
        ("python:3.12", A, "docker://python:3.12"),
        ("python:3.12", P, "python:3.12"),
        ("ghcr.io/a/b@sha256:00", D, "ghcr.io/a/b@sha256:00"),
        ("a/dockerfile-tools:1.0", D, "a/dockerfile-tools:1.0"),
        ("docker://python:3.12", A, "docker://python:3.12"),
        ("docker://python:3.12", P, "docker://python:3.12"),
        ("docker://python:3.12", D, "python:3.12"),
        ("oras://ghcr.io/a/b:1", A, "oras://ghcr.io/a/b:1"),
        ("docker-archive:x.tar", P, "docker-archive:x.tar"),
        ("docker-daemon:x:1", D, "x:1"),
        ("tool.sif", Runtime.SINGULARITY, "{root}/tool.sif"),
        ("./box", A, "{root}/box"),
        ("x.tar", A, "docker-archive:{root}/x.tar"),
        ("x.tar", P, "docker-archive:{root}/x.tar"),
        ("saved", P, "docker-archive:{root}/saved"),
    ],
)
def test_image(tmp_path: Path, declared: str, runtime: Runtime, named: str) -> None:
    for name in ("tool.sif", "x.tar", "saved"):
        (tmp_path / name).touch()
    (tmp_path / "box").mkdir()
    assert image_name(declared, tmp_path, runtime) == named.format(root=tmp_path)


@pytest.mark.parametrize(
    ("declared", "runtime", "why"),
    [
        ("", A, "its container '' is no image"),
        ("--privileged", P, "is no image"),
        ("a b", P, "is no image"),
        ("Containerfile", P, "run 'podman build -t NAME -f Containerfile .', and name what that"),
        ("env/Dockerfile.gpu", A, "run 'podman build -t NAME -f env/Dockerfile.gpu .', and"),
        ("tool.def", P, "run 'apptainer build IMAGE.sif tool.def', and name what that makes"),
        ("gone.sif", A, "its container gone.sif is not there: put the image at {root}/gone.sif"),
        ("./gone", P, "its container ./gone is not there"),
        ("tool.sif", P, "cannot be run by podman, .*: install apptainer or singularity, or"),
        ("./box", D, "cannot be run by docker"),
        ("library://a/b/c", P, "cannot be run by podman"),
        ("oci-archive:x.tar", D, "cannot be run by docker, .*: install apptainer or podman, or"),
        ("x.tar", D, "run 'docker load -i x.tar', and name the image as the container"),
    ],
)
def test_image_that_is_refused(tmp_path: Path, declared: str, runtime: Runtime, why: str) -> None:
    for name in ("tool.sif", "x.tar"):
        (tmp_path / name).touch()
    (tmp_path / "box").mkdir()
    with pytest.raises(ContainerError, match=why.format(root=tmp_path)) as refused:
        image_name(declared, tmp_path, runtime)
    assert "\n" not in str(refused.value)


def test_mounts_follow_links_and_are_said_once(tmp_path: Path) -> None:
    far = tmp_path / "far"
    near = tmp_path / "near"
    (far / "results" / "baseline").mkdir(parents=True)
    (far / "data").mkdir()
    near.mkdir()
    (near / "results").symlink_to(far / "results")
    (tmp_path / "shortcut").symlink_to(far / "data")
    inputs = (
        Input("inside", "x", str(near / "x"), "x"),
        Input("link", "y", str(tmp_path / "shortcut"), None),
        Input("gone", "z", str(tmp_path / "gone"), None),
        Input("web", "https://z", None, None),
    )
    path = near / "results" / "baseline" / "fit.txt"
    made = Output(
        universe="baseline",
        id="fit",
        root=near,
        place=str(path),
        state=str(path.parent / ".lightcone" / "fit"),
        is_directory=False,
        command="true",
        template="true",
        inputs=inputs,
    )
    found = mounts(made, [Path(), Path("/")])
    assert found == [far / "data", far / "results" / "baseline", near, tmp_path / "shortcut"]
    with pytest.raises(ContainerError, match="has a comma, a colon, a quote or a line break"):
        (tmp_path / "a,b").mkdir()
        mounts(made, [tmp_path / "a,b"])


def test_name_of_a_container() -> None:
    assert container_name("lightcone-01-strict/sub.fit-3") == "lightcone-01-strict-sub-fit-3"
    names = {container_name("lightcone-" + "x" * 200 + end) for end in "ab"}
    assert len(names) == 2
    assert all(len(name) <= 100 for name in names)


def test_first_runtime_in_the_path_is_taken(tmp_path: Path) -> None:
    made = _made(tmp_path, container="python:3.12")
    programs = tmp_path / "bin"
    programs.mkdir()
    variables = {"PATH": str(programs)}
    with pytest.raises(ContainerError, match="needs apptainer, podman or docker, and the PATH of"):
        Container.choose(made, variables)
    for runtime in reversed(Runtime):
        program = programs / runtime
        program.write_text("#!/bin/sh\n[ $1 = info ] || exit 1\necho '[\"name=rootless\"]'\n")
        program.chmod(0o755)
        chosen = Container.choose(made, variables)
        assert (chosen.runtime, chosen.program) == (runtime, str(program))
        if runtime is Runtime.DOCKER:
            assert chosen.options == ("--user", "0:0")
            program.write_text("#!/bin/sh\nexit 1\n")
            with pytest.raises(ContainerError, match="by docker, whose engine does not answer on"):
                Container.choose(made, variables)


# ---- podman -------------------------------------------------------------------------------------


class Podman:
    """podman with a storage and settings of its own in a sandbox, and one small image."""

    def __init__(self, box: Sandbox) -> None:
        base = box.base / "podman"
        base.mkdir()
        self.env = box.env
        runtime = next((name for name in ("runc", "crun") if shutil.which(name)), "runc")
        (base / "containers.conf").write_text(
            '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]\n'
            f'[engine]\nruntime = "{runtime}"\ncgroup_manager = "cgroupfs"\n'
            f'events_logger = "none"\nlock_type = "file"\ntmp_dir = "{base}/tmp"\n'
        )
        (base / "storage.conf").write_text(
            f'[storage]\ndriver = "vfs"\ngraphroot = "{base}/graph"\nrunroot = "{base}/run"\n'
            f'rootless_storage_path = "{base}/graph"\n'
        )
        box.env["CONTAINERS_CONF"] = str(base / "containers.conf")
        box.env["CONTAINERS_STORAGE_CONF"] = str(base / "storage.conf")
        self.base = base
        self.box = box
        why = self._prepare()
        if why:
            do_without(why)

    def __call__(self, *arguments: str, check: bool = True) -> str:
        """What ``podman`` prints."""
        result = subprocess.run(
            ["podman", *arguments],
            env=self.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert result.returncode == 0 or not check, result.stderr
        return result.stdout

    def _prepare(self) -> str:
        """Make the image; why no container can be run here, or nothing."""
        if sys.platform != "linux":
            return "podman runs in a virtual machine here"
        if shutil.which("podman") is None:
            return "podman is not installed (scripts/setup.sh podman installs it)"
        busybox = shutil.which("busybox")
        if busybox is None:
            return "busybox is not installed (scripts/setup.sh podman installs it)"
        tree = self.base / "image"
        (tree / "bin").mkdir(parents=True)
        shutil.copy(busybox, tree / "bin" / "busybox")
        for applet in _APPLETS:
            (tree / "bin" / applet).symlink_to("busybox")
        (tree / "of-the-image").touch()
        archive = shutil.make_archive(str(self.base / "image"), "tar", tree)
        self("import", "--quiet", archive, _IMAGE)
        result = subprocess.run(
            ["podman", "run", "--rm", "--network", "host", _IMAGE, "/bin/sh", "-c", "exit 0"],
            env=self.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return f"podman runs no container here: {result.stderr}" if result.returncode else ""

    def names(self) -> list[str]:
        """The containers there are, running or not."""
        return self("ps", "--all", "--format", "{{.Names}}").split()

    def close(self) -> None:
        """Remove every container and what is mounted; raise AssertionError for a container."""
        left = self.names()
        if left:
            self("rm", "--force", *left)
        mounted = Path("/proc/mounts").read_text().splitlines()
        for point in sorted((line.split()[1] for line in mounted), reverse=True):
            if point.startswith(f"{self.base}/"):
                subprocess.run(["umount", point], check=True)
        assert not left


@pytest.fixture(scope="module")
def podman() -> Iterator[Podman]:
    """podman, in a sandbox whose session has a grace that no test outlasts."""
    box = Sandbox()
    try:
        found = Podman(box)
        (box.project / "lightcone.toml").write_text(f"[run]\ngrace = {_GRACE}\n")
        box.start()
        yield found
        found.close()
    finally:
        box.close()


@pytest.fixture(scope="module")
def shared(podman: Podman) -> Sandbox:
    return podman.box


@pytest.fixture
def boxed(analysis: Analysis) -> Analysis:
    """An analysis with that grace, whose place is on scratch, and so in its containers too."""
    _settle(analysis, _GRACE)
    return analysis


@pytest.fixture
def alone(sandbox: Sandbox) -> Iterator[tuple[Analysis, Podman]]:
    """The same with a session, a storage and a short grace of its own."""
    found = Podman(sandbox)
    analysis = Analysis(sandbox)
    _settle(analysis, 1.0)
    yield analysis, found
    analysis.close()
    found.close()


def _settle(analysis: Analysis, grace: float) -> None:
    analysis.place = analysis.box.scratch / "place"
    analysis.box.env |= {"MADE": str(analysis.place / "made"), "PLACE": str(analysis.place)}
    analysis.clear()
    analysis.write("lightcone.toml", f"[run]\ngrace = {grace}\n")


def _contained(name: str, command: str, **more: Any) -> dict[str, Any]:
    entry = output(name, command, **more)
    entry["recipe"]["container"] = _IMAGE
    return entry


_ENDLESS = 'echo half > {output}; touch "$PLACE/begun"; while :; do sleep 0.1 || :; done'
_POLITE = f"trap 'echo saved > $PLACE/saved; exit 0' TERM; {_ENDLESS}"
_DEAF = f'trap "echo heard" TERM; {_ENDLESS}'


def test_recipe_is_what_it_is_without_a_container(boxed: Analysis, podman: Podman) -> None:
    far = boxed.box.base / "far.txt"
    far.write_text("far\n")
    (boxed.root / "near.txt").symlink_to(far)
    tells = (
        "id -u; id -g; pwd; umask; echo $HOME $PATH; cat {inputs}; echo $FOO; touch $TMPDIR/mine"
    )
    boxed.spec(
        _contained("x", f"test -e /of-the-image; ({tells}) > {{output}}", inputs=("far", "near")),
        inputs=[
            {"id": "far", "type": "data", "source": str(far)},
            {"id": "near", "type": "data", "source": "near.txt"},
        ],
    )
    # Another group than the session's other recipes would have, had they one.
    path = f"{os.environ['PATH']}:/of-the-caller"
    program = boxed.begin(env={"FOO": "one\n'two' $three", "PATH": path}, umask=0o027)
    out, errors = program.communicate(timeout=60)
    assert (program.returncode, errors) == (0, b""), out
    user, group, directory, umask, home, *rest = boxed.text("x").splitlines()
    assert (int(user), int(group)) == (os.getuid(), os.getgid())
    assert Path(directory) == boxed.root
    assert int(umask, 8) == 0o027
    assert home.startswith(f"{boxed.box.home} /")
    assert "of-the-caller" not in home
    assert rest == ["far", "far", "one 'two' $three"]
    for path_made in (boxed.path("x"), boxed.box.base / "tmp" / "mine"):
        made = path_made.stat()
        assert (made.st_uid, made.st_gid, made.st_mode & 0o777) == (os.getuid(), os.getgid(), 0o640)
    assert podman.names() == []
    log = (boxed.state("x") / "log.txt").read_text()
    assert f"# in container {_IMAGE}, run by podman\n" in log
    manifest = json.loads((boxed.state("x") / "manifest.json").read_text())
    assert "peak_memory" not in manifest["made"]
    assert boxed.summary()["up_to_date"] == 1


def test_recipe_that_fails_in_its_container(boxed: Analysis, podman: Podman) -> None:
    boxed.spec(_contained("x", "echo told; echo wrong >&2; (exit 3); touch {output}"))
    told = boxed.run(check=1).stdout
    assert "baseline/x: FAILED, exit code 3\n" in told
    assert "    told\n    wrong\n" in told
    assert podman.names() == []


def test_container_that_cannot_be_started(boxed: Analysis, podman: Podman) -> None:
    entry = output("x", "echo 1 > {output}")
    entry["recipe"]["container"] = "docker-archive:gone.tar"
    boxed.spec(entry)
    told = boxed.run(check=1).stdout
    assert "baseline/x: FAILED, exit code 125\n" in told
    assert "gone.tar" in told


def test_no_recipe_runs_outside_its_container(boxed: Analysis) -> None:
    boxed.spec(_contained("x", "echo good > {output}"))
    boxed.run()
    empty = boxed.box.base / "empty"
    empty.mkdir(exist_ok=True)
    out = boxed.run("-f", check=1, env={"PATH": str(empty)}).stdout
    assert f"FAILED, its container {_IMAGE} needs apptainer, podman or docker, and the PATH" in out
    entry = output("x", "echo good > {output}")
    entry["recipe"]["container"] = "Containerfile"
    boxed.spec(entry)
    out = boxed.run(check=1).stdout
    assert "FAILED, its container Containerfile says how to build an image, and none is" in out
    boxed.spec(_contained("x", "echo good > {output}"))
    assert boxed.states() == {"x": "ok"}
    assert boxed.made() == ["x"]


def _begin(analysis: Analysis, *arguments: str) -> subprocess.Popen[bytes]:
    program = analysis.begin(*arguments)
    analysis.began("begun")
    return program


def test_interrupt_asks_what_is_in_the_container(boxed: Analysis, podman: Podman) -> None:
    boxed.spec(_contained("x", _POLITE))
    program = _begin(boxed)
    (name,) = podman.names()
    assert name.startswith("lightcone-")
    assert "-baseline-x-" in name
    begun = time.monotonic()
    interrupt(program)
    out, errors = program.communicate(timeout=30)
    assert (program.returncode, errors) == (130, b""), out
    assert time.monotonic() - begun < _SOON
    assert (boxed.place / "saved").read_text() == "saved\n"
    assert podman.names() == []
    assert boxed.states() == {"x": "interrupted"}
    assert boxed.leftovers() == []


def test_second_interrupt_ends_a_container_at_once(boxed: Analysis, podman: Podman) -> None:
    boxed.spec(_contained("x", _DEAF))
    program = _begin(boxed)
    begun = time.monotonic()
    interrupt(program)
    assert program.stdout is not None
    heard = iter(program.stdout.readline, b"")
    assert any(line == b"baseline/x | heard\n" for line in heard)
    assert len(podman.names()) == 1
    interrupt(program)
    _, errors = program.communicate(timeout=30)
    assert (program.returncode, errors) == (130, b"")
    assert podman.names() == []
    assert time.monotonic() - begun < _SOON


def test_killed_run_takes_its_container_with_it(boxed: Analysis, podman: Podman) -> None:
    boxed.spec(_contained("x", _POLITE))
    program = _begin(boxed)
    program.kill()
    wait_until(lambda: podman.names() == [], "the container has ended")
    assert (boxed.place / "saved").exists()
    wait_until(lambda: boxed.states() == {"x": "interrupted"}, "that is recorded")


def test_time_limit_ends_a_container(boxed: Analysis, podman: Podman) -> None:
    boxed.spec(_contained("x", _POLITE, resources={"time_limit": "1s"}))
    assert "it was ended at its time limit of 1" in boxed.run(check=1).stdout
    assert podman.names() == []


# Shows, by the times of two files of its own, when it began and when it was last seen.
_SEEN = (
    'trap "echo heard" TERM; echo >> "$PLACE/begun"; n=$(wc -l < "$PLACE/begun"); '
    'touch "$PLACE/first$n"; echo half > {output}; '
    'until [ -e "$PLACE/gate" ]; do touch "$PLACE/last$n"; sleep 0.05 || :; done; '
    "echo made > {output}"
)


def test_killed_worker_leaves_no_container_beside_the_next(alone: tuple[Analysis, Podman]) -> None:
    analysis, podman = alone
    analysis.spec(_contained("x", _SEEN))
    program = _begin(analysis)
    (first,) = podman.names()
    os.kill(analysis.box.programs()["worker"], signal.SIGKILL)
    wait_until((analysis.place / "last2").exists, "it runs again")
    (second,) = podman.names()
    assert second != first
    analysis.open("gate")
    out, errors = program.communicate(timeout=60)
    assert (program.returncode, errors) == (0, b""), out
    assert b"lc: baseline/x: its worker was lost; trying again\n" in out
    ended, began = (analysis.place / name for name in ("last1", "first2"))
    assert ended.stat().st_mtime_ns < began.stat().st_mtime_ns
    assert analysis.text("x") == "made\n"
    assert podman.names() == []


def test_everything_killed_at_once_leaves_no_container(alone: tuple[Analysis, Podman]) -> None:
    analysis, podman = alone
    analysis.spec(_contained("x", _SEEN))
    program = _begin(analysis)
    assert len(podman.names()) == 1
    pids = [*analysis.box.programs().values(), program.pid]
    for signum in (signal.SIGSTOP, signal.SIGKILL):  # so that none of them sees another one die
        for pid in pids:
            os.kill(pid, signum)
    wait_until(lambda: not analysis.box.processes(), "every process has ended")
    assert podman.names() == []
    assert analysis.states() == {"x": "interrupted"}
    analysis.open("gate")
    assert analysis.summary()["made"] == 1
    ended, began = (analysis.place / name for name in ("last1", "first2"))
    assert ended.stat().st_mtime_ns < began.stat().st_mtime_ns
    assert analysis.leftovers() == []


def test_stopped_session_leaves_no_container(alone: tuple[Analysis, Podman]) -> None:
    analysis, podman = alone
    # As long as it may take podman to pass it on that it is to end.
    analysis.write("lightcone.toml", f"[run]\ngrace = {_GRACE}\n")
    analysis.spec(_contained("x", _POLITE))
    program = _begin(analysis)
    analysis.box.lc("session", "stop")
    assert podman.names() == []
    assert (analysis.place / "saved").exists()
    assert program.wait(timeout=30) == 3
