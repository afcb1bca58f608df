# Prints a table of the numbers in a file and their distances from a centre.
# Usage: sh report.sh FILE CENTRE_FILE
set -eu
LC_ALL=C
export LC_ALL

centre=$(cat "$2")
echo "# Distances from $centre mm"
echo
echo "| length (mm) | distance (mm) |"
echo "|---:|---:|"
awk -v centre="$centre" '{ printf "| %.1f | %+.2f |\n", $1, $1 - centre }' "$1"
echo "$(awk 'END { print NR }' "$1") measurements, centre $centre mm" >&2
