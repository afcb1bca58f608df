# Prints the centre of the numbers in a file.
# Usage: sh centre.sh mean|median FILE
set -eu
LC_ALL=C
export LC_ALL

sort -n "$2" | awk -v centre="$1" '
    { values[NR] = $1; sum += $1 }
    END {
        if (NR == 0) exit 1
        middle = (values[int((NR + 1) / 2)] + values[int(NR / 2) + 1]) / 2
        printf "%.3f\n", centre == "mean" ? sum / NR : middle
    }
'
