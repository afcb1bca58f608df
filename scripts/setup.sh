#!/usr/bin/env bash
# Bring this checkout to where it can run, from a machine with little more than Python.
#
#   scripts/setup.sh PART...      PART is one of
#     tmux      a tmux that is new enough
#     podman    podman, for the tests of containers, where it is had for the asking
#     strace    strace, for the tests of observed recipes, likewise
#     slurm     SLURM, for the tests of allocations, likewise
#     locales   the sources of locales, for the tests of one that is not UTF-8, likewise
#     package   lightcone, editable, in .venv
#     tox       tox in .venv
#     example   examples/hubble/.venv with what the example needs
#
# What is in place already is left alone. PYTHON=... names the interpreter to use.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
venv=$root/.venv
oldest_python=3.11
oldest_tmux=3.2
# An activated .venv is not what to make .venv with.
PATH=:$PATH:
PATH=${PATH//":$venv/bin:"/:}
PATH=${PATH#:}
PATH=${PATH%:}

say() { printf '· %s\n' "$*"; }
fail() {
    printf 'setup: %s\n' "$*" >&2
    exit 2
}
has() { command -v "$1" >/dev/null 2>&1; }

# Run quietly; what a failing command printed is shown after all.
quietly() {
    local log status=0
    log=$(mktemp "${TMPDIR:-/tmp}/lightcone-setup.XXXXXX")
    "$@" >"$log" 2>&1 </dev/null || status=$?
    if [ "$status" -ne 0 ]; then
        tail -n 25 "$log" >&2
    fi
    rm -f "$log"
    return "$status"
}

# ---- Python ----------------------------------------------------------------------------------------

# A shim that is found in PATH and fails when called does not count, hence the call.
is_new_enough() {
    "$1" -c "import sys; sys.exit(sys.version_info[:2] < (${oldest_python/./, }))" >/dev/null 2>&1
}

find_python() {
    local name
    if [ -n "${PYTHON:-}" ]; then
        is_new_enough "$PYTHON" ||
            fail "PYTHON=$PYTHON does not run or is older than $oldest_python; name another one."
        command -v "$PYTHON"
        return
    fi
    for name in python3 python3.13 python3.12 python3.11; do
        if is_new_enough "$name"; then
            command -v "$name"
            return
        fi
    done
    fail "no Python from $oldest_python on was found; install one, or name it: make PYTHON=/path/to/python3"
}

# ---- What the system's package manager has to bring ------------------------------------------------

tmux_is_new_enough() {
    local version
    version=$(tmux -V 2>/dev/null) || return 1
    version=$(printf '%s' "$version" | sed -n 's/^tmux [a-z-]*\([0-9]*\)\.\([0-9]*\).*/\1 \2/p')
    # Without a number it is a development version.
    [ -n "$version" ] || return 0
    [ "${version% *}" -gt "${oldest_tmux%.*}" ] || {
        [ "${version% *}" -eq "${oldest_tmux%.*}" ] && [ "${version#* }" -ge "${oldest_tmux#*.}" ]
    }
}

has_venv_module() { "$1" -c 'import venv, ensurepip' >/dev/null 2>&1; }

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    else
        sudo -n "$@"
    fi
}

# Whether packages can be installed for everybody. A person is asked for the password here, because
# what follows runs without a terminal.
may_be_root() {
    [ "$(id -u)" -eq 0 ] && return
    has sudo || return
    if [ -t 0 ] && [ -z "${CI:-}" ]; then
        sudo -v
    else
        sudo -n true 2>/dev/null
    fi
}

apt_install() {
    local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=120)
    # The list of packages is missing on a fresh machine and out of date on an old one.
    as_root "${apt[@]}" update || true
    as_root "${apt[@]}" install --no-install-recommends "$@"
}

conda_install() {
    # A prefix of its own, so that no environment of the user's changes.
    "$1" create --yes --quiet --prefix "$venv/conda" --channel conda-forge tmux || return
    ln -sf ../conda/bin/tmux "$venv/bin/tmux"
}

# Install the packages named for everybody, with the first manager that serves.
system_install() {
    local manager
    for manager in apt-get dnf brew; do
        has "$manager" || continue
        if [ "$manager" != brew ] && ! may_be_root; then
            say "$manager could bring $*, but that takes root or sudo"
            continue
        fi
        say "Installing $* with $manager"
        case $manager in
            apt-get) quietly apt_install "$@" && return ;;
            dnf) quietly as_root dnf install --assumeyes --quiet "$@" && return ;;
            brew) quietly env HOMEBREW_NO_AUTO_UPDATE=1 brew install --quiet "$@" && return ;;
        esac
    done
    return 1
}

setup_tmux() {
    local manager
    # A tmux from conda has its link there.
    ensure_venv "$venv"
    PATH=$venv/bin:$PATH
    tmux_is_new_enough && return
    system_install tmux || true
    hash -r
    tmux_is_new_enough && return
    for manager in conda mamba micromamba; do
        if has "$manager"; then
            say "Installing tmux with $manager"
            quietly conda_install "$manager" || true
            hash -r
            tmux_is_new_enough && return
        fi
    done
    fail "tmux $oldest_tmux or later is needed and could not be installed here; install it by hand (it is called tmux with apt, dnf, brew and conda), then run make again."
}

# Without it these tests are skipped, so that nobody is asked for a password and nothing fails.
setup_podman() {
    if has podman && has busybox; then
        return
    fi
    if [ "$(id -u)" -eq 0 ] && has apt-get; then
        system_install podman runc busybox-static && return
    fi
    say "podman or busybox is not installed: the tests of containers that need them are skipped"
}

# What locales are made of, for the test of one that is not UTF-8.
setup_locales() {
    [ -e /usr/share/i18n/locales/en_US ] && return
    if [ "$(id -u)" -eq 0 ] && has apt-get; then
        system_install locales && return
    fi
    say "the sources of locales are not installed: the tests of other locales are skipped"
}

# The same for strace.
setup_strace() {
    has strace && return
    if [ "$(id -u)" -eq 0 ] && has apt-get; then
        system_install strace && return
    fi
    say "strace is not installed: the tests of observed recipes are skipped"
}

# The same for SLURM. The tests start its daemons themselves, each time anew and in a place of their
# own: what the packages would have this machine run from now on is turned off again.
setup_slurm() {
    local service services=(slurmctld slurmd)
    if has_daemon slurmctld && has_daemon slurmd && has_daemon munged && has srun; then
        return
    fi
    if has srun || has_daemon slurmd; then
        say "this machine belongs to a SLURM of its own, which is left alone: the tests of allocations that need all of it are skipped"
        return
    fi
    has_daemon munged || services+=(munge)
    if has apt-get && { [ "$(id -u)" -eq 0 ] || sudo -n true 2>/dev/null; } &&
        system_install slurm-wlm munge iproute2; then
        if [ -d /run/systemd/system ]; then
            for service in "${services[@]}"; do
                as_root systemctl --quiet disable --now "$service" || true
            done
        fi
        return
    fi
    say "SLURM is not installed: the tests of allocations that need it are skipped"
}

# Daemons are where the PATH of a plain user does not look.
has_daemon() { PATH=$PATH:/usr/sbin:/sbin has "$1"; }

# ---- Virtual environments --------------------------------------------------------------------------

# What the content of an environment follows from; where that has changed, it is brought up to date.
stamp_of() { printf '%s %s' "$root" "$(cat "$@" "$root/scripts/setup.sh" | cksum)"; }

is_stamped() { [ "$(cat "$1" 2>/dev/null)" = "$2" ]; }

# An environment whose interpreter went away, or that stands elsewhere than it was made, is no use.
is_usable() {
    grep -qsF "$1/bin/python" "$1/bin/pip" && is_new_enough "$1/bin/python" || return
    [ -z "${PYTHON:-}" ] ||
        [ "$("$1/bin/python" -c 'import sys; print(sys.version_info[:2])')" = \
            "$("$PYTHON" -c 'import sys; print(sys.version_info[:2])')" ]
}

ensure_venv() {
    local python minor
    is_usable "$1" && return
    python=$(find_python)
    minor=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    if ! has_venv_module "$python"; then
        # Debian and Ubuntu keep it in a package of its own. Both are fetched in one go.
        if tmux_is_new_enough; then
            system_install "python$minor-venv" || true
        else
            system_install "python$minor-venv" tmux || true
        fi
        has_venv_module "$python" ||
            fail "$python cannot make virtual environments; install its venv module (apt install python$minor-venv), then run make again."
    fi
    say "Making ${1#"$root/"} with Python $minor"
    rm -rf "$1"
    quietly "$python" -m venv "$1" || fail "$python could not make the virtual environment $1."
}

pip_install() {
    local venv=$1
    shift
    quietly "$venv/bin/python" -m pip install --quiet --no-input --disable-pip-version-check "$@" ||
        fail "pip could not install what is needed; its last lines stand above."
}

setup_package() {
    local stamp
    stamp=$(stamp_of "$root/pyproject.toml")
    ensure_venv "$venv"
    is_stamped "$venv/.package" "$stamp" && return
    say "Installing lightcone and what it needs (a minute, the first time)"
    pip_install "$venv" --editable "$root"
    printf '%s' "$stamp" >"$venv/.package"
}

setup_tox() {
    local stamp
    stamp=$(stamp_of "$root/tox.ini")
    ensure_venv "$venv"
    is_stamped "$venv/.tox" "$stamp" && return
    say "Installing tox"
    pip_install "$venv" 'tox>=4.26'
    printf '%s' "$stamp" >"$venv/.tox"
}

setup_example() {
    local own=$root/examples/hubble stamp
    stamp=$(stamp_of "$own/requirements.txt")
    ensure_venv "$own/.venv"
    is_stamped "$own/.venv/.example" "$stamp" && return
    say "Installing what the example needs (numpy, matplotlib)"
    pip_install "$own/.venv" --requirement "$own/requirements.txt"
    printf '%s' "$stamp" >"$own/.venv/.example"
}

[ $# -gt 0 ] || fail "say what to set up: tmux, podman, strace, slurm, locales, package, tox or example."
for part in "$@"; do
    case $part in
        tmux | podman | strace | slurm | locales | package | tox | example) ;;
        *) fail "there is no part called '$part'; there are tmux, podman, strace, slurm, locales, package, tox and example." ;;
    esac
done
# One at a time: two makes started together would build the same environment. Held until this script
# ends; a file system without locks is no reason to stop.
python=$(find_python)
exec 9>>"$root/pyproject.toml"
"$python" -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX)' 2>/dev/null || true
for part in "$@"; do
    "setup_$part"
done
