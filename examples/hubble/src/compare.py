"""Set one or more fits beside what Hubble published in 1929, as a markdown table."""

import argparse
import json
from pathlib import Path

# E. Hubble, PNAS 15 (1929) 168: the two solutions he gives, (value, error).
PUBLISHED = {
    "24 nebulae": {"K": (465, 50), "X": (-65, 50), "Y": (226, 95), "Z": (-195, 40)},
    "9 groups": {"K": (513, 60), "X": (3, 70), "Y": (230, 120), "Z": (-133, 70)},
}
UNITS = {"K": "km/s/Mpc", "V": "km/s", "X": "km/s", "Y": "km/s", "Z": "km/s"}
LEGEND = """\
K is the expansion rate. X, Y, Z is what the motion of the Sun adds to a velocity,
V the velocity at no distance; each is solved for only where a figure stands.
"His" is Edwin Hubble, PNAS 15 (1929) 168."""


def heading(fit: dict) -> str:
    """What sets this fit apart, in a column's width."""
    sun = f"{fit['model']['solar_motion']} Sun"
    return sun if fit["model"]["line"] == "through_origin" else f"{sun}, V"


def cell(terms: dict, name: str) -> str:
    """One term of one solution; a dash where that solution does not have it."""
    if name not in terms:
        return "-"
    term = terms[name]
    value, error = term if isinstance(term, tuple) else (term["value"], term["error"])
    sign = "" if name == "K" else "+"
    return f"{value:{sign}.0f} ± {error:.0f}"


def rows(fits: list[dict]) -> list[list[str]]:
    """The table: heading first, then a row for each term that some solution has."""
    solutions = [fit["terms"] for fit in fits] + list(PUBLISHED.values())
    titles = [heading(fit) for fit in fits] + [f"his {name}" for name in PUBLISHED]
    table = [["", *titles]]
    for name, unit in UNITS.items():
        if any(name in terms for terms in solutions):
            table.append([f"{name}, {unit}", *(cell(terms, name) for terms in solutions)])
    scatter = [f"{fit['scatter_km_s']:.0f}" for fit in fits]
    table.append(["scatter, km/s", *scatter, *["-" for _ in PUBLISHED]])
    return table


def verdict(fit: dict) -> str:
    """One sentence: how far this K is from each of his."""
    rate = fit["terms"]["K"]["value"]
    distances = [
        f"{rate - value:+.0f} from his {name} (± {error})"
        for name, (value, error) in ((name, terms["K"]) for name, terms in PUBLISHED.items())
    ]
    return f"{heading(fit)}: {rate:.0f} is {' and '.join(distances)}"


def markdown(table: list[list[str]]) -> str:
    """The table, padded so that it reads well unrendered too."""
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    lines = [
        "| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |"
        for row in table
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("fits", type=Path, nargs="+", metavar="FIT", help="a fit, json")
    parser.add_argument("--out", type=Path, help="where the report goes (default: the screen)")
    args = parser.parse_args()

    fits = [json.loads(path.read_text(encoding="utf-8")) for path in args.fits]
    verdicts = "\n".join(f"- {verdict(fit)}" for fit in fits)
    report = f"{markdown(rows(fits))}\n\n{verdicts}\n\n{LEGEND}\n"
    if args.out is None:
        print(report, end="")
    else:
        args.out.write_text(f"# The expansion rate of 1929, again\n\n{report}", encoding="utf-8")
        print(verdict(fits[0]))


if __name__ == "__main__":
    main()
