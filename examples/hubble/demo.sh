#!/usr/bin/env bash
# A walk through `lc` on this example, in a copy of it that is gone afterwards. `make demo` calls it.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
root=$(cd "$here/../.." && pwd -P)
figures=$here/figures

# `lc` is the checkout's; `python`, which the recipes call, is the example's own.
PATH=$here/.venv/bin:$root/.venv/bin:$PATH

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
    bold=$(printf '\033[1m') plain=$(printf '\033[0m') dim=$(printf '\033[2m')
else
    bold="" plain="" dim=""
fi

# One step: what it shows, then the command, then what that prints.
show() {
    printf '\n%s# %s%s\n%s$ %s%s\n' "$dim" "$1" "$plain" "$bold" "${*:2}" "$plain"
    "${@:2}"
}

temporary=$(mktemp -d "${TMPDIR:-/tmp}/lightcone-demo.XXXXXX")
# The session is named after this directory.
project=$temporary/hubble
mkdir "$project"
session_is_over=""

# Nothing stays behind, however this ends.
leave() {
    local status=$?
    trap '' INT TERM HUP
    if [ -z "$session_is_over" ]; then
        (cd "$project" && lc session stop) || true
    fi
    rm -rf "$temporary"
    exit "$status"
}
trap leave EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP

cp -R "$here/astra.yaml" "$here/lightcone.toml" "$here/data" "$here/src" "$here/universes" "$project"
cd "$project"

printf '%sThe expansion of the universe, as Edwin Hubble found it in 1929%s\n' "$bold" "$plain"
printf 'Four outputs (a table, a fit, a figure, a comparison) in two universes: with and without the\n'
printf 'motion of the Sun. The project is a copy in %s.\n' "$project"

show 'The first run starts a cluster for this project, and makes everything.' \
    lc run
show 'The second finds everything good: nothing is made, and the cluster is not asked.' \
    lc run
show 'Every output in every universe, and how it is.' \
    lc status

show 'Now decide differently in one universe: its line need not pass through the origin.' \
    sed -i.bak 's/through_origin/with_intercept/' universes/without-sun.yaml
show 'Only what depends on that decision is made again, on the same cluster.' \
    lc run
show 'Both universes beside what Hubble published (K is the expansion rate).' \
    python src/compare.py results/with-sun/fit.json results/without-sun/fit.json

mkdir -p "$figures"
for universe in with-sun without-sun; do
    cp "results/$universe/diagram.png" "$figures/$universe.png"
done

show 'The cluster would wait for the next run, and end by itself when idle; here it ends now.' \
    lc session stop
session_is_over=yes

printf '\n%sThe figures to look at:%s\n' "$bold" "$plain"
printf '  %s\n' "$figures/with-sun.png" "$figures/without-sun.png"
