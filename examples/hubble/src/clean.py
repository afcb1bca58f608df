"""Turn the table as printed in 1929 into one that a fit can read.

Every nebula gets its full name, its position in degrees and the unit vector (x, y, z) towards it in
the equatorial frame, so that nothing further on has to know about angles.
"""

import argparse
import csv
import math
import re
from collections.abc import Iterator
from pathlib import Path

CLOUDS = {"S. Mag.": "Small Magellanic Cloud", "L. Mag.": "Large Magellanic Cloud"}
COLUMNS = ["name", "distance_mpc", "velocity_km_s", "ra_deg", "dec_deg", "x", "y", "z"]


def degrees(sexagesimal: str) -> float:
    """The value of `±DD MM SS` (or `HH MM SS`, in hours); the sign counts for -00 too."""
    found = re.fullmatch(r"([+-]?)(\d+) (\d+) ([\d.]+)", sexagesimal.strip())
    if found is None:
        raise SystemExit(f"{sexagesimal!r} is not a position such as '-14 47 21'.")
    sign, whole, minutes, seconds = found.groups()
    value = int(whole) + int(minutes) / 60 + float(seconds) / 3600
    return -value if sign == "-" else value


def cleaned(lines: list[str]) -> Iterator[list[str]]:
    """One row of COLUMNS for each nebula of the printed table."""
    for row in csv.DictReader(line for line in lines if not line.startswith("#")):
        name = CLOUDS.get(row["name"]) or f"NGC {int(row['name'])}"
        right_ascension, declination = 15 * degrees(row["ra"]), degrees(row["dec"])
        a, d = math.radians(right_ascension), math.radians(declination)
        direction = (math.cos(a) * math.cos(d), math.sin(a) * math.cos(d), math.sin(d))
        yield [
            name,
            f"{float(row['r']):.3f}",
            f"{float(row['v']):.0f}",
            f"{right_ascension:.4f}",
            f"{declination:.4f}",
            *(f"{component:.6f}" for component in direction),
        ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", type=Path, required=True, help="the table as printed, csv")
    parser.add_argument("--out", type=Path, required=True, help="where the cleaned table goes, csv")
    args = parser.parse_args()

    rows = list(cleaned(args.table.read_text(encoding="utf-8").splitlines()))
    with args.out.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(rows)
    print(f"{len(rows)} nebulae, out to {max(float(row[1]) for row in rows):.1f} Mpc")


if __name__ == "__main__":
    main()
