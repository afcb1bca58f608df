"""Fit the expansion rate K to the nebulae, by least squares.

The full model is Hubble's equation of condition, with one more term that he did not have:

    v = K r + V + X cos(ra) cos(dec) + Y sin(ra) cos(dec) + Z sin(dec)

X, Y, Z is the motion of the Sun with its sign turned (what it adds to a measured velocity). V is
the velocity at no distance, which is 0 for a line through the origin. Errors are standard errors.
"""

import argparse
import csv
import json
from pathlib import Path

import numpy as np

UNITS = {"K": "km/s/Mpc", "V": "km/s", "X": "km/s", "Y": "km/s", "Z": "km/s"}


def read(table: Path) -> dict[str, np.ndarray]:
    """The columns of the cleaned table that are numbers."""
    with table.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    numbers = [name for name in rows[0] if name != "name"]
    return {name: np.array([float(row[name]) for row in rows]) for name in numbers}


def terms(nebulae: dict[str, np.ndarray], solar_motion: bool, intercept: bool) -> dict:
    """What multiplies each unknown, in the order in which they are solved for."""
    columns = {"K": nebulae["distance_mpc"]}
    if intercept:
        columns["V"] = np.ones_like(nebulae["distance_mpc"])
    if solar_motion:
        columns |= {"X": nebulae["x"], "Y": nebulae["y"], "Z": nebulae["z"]}
    return columns


def solve(columns: dict[str, np.ndarray], velocity: np.ndarray) -> dict:
    """The least-squares solution, with what a figure and a report need of it."""
    design = np.column_stack(list(columns.values()))
    solution, *_ = np.linalg.lstsq(design, velocity, rcond=None)
    residuals = velocity - design @ solution
    freedom = len(velocity) - len(solution)
    variance = float(residuals @ residuals) / freedom
    covariance = variance * np.linalg.inv(design.T @ design)
    errors = np.sqrt(np.diag(covariance))
    return {
        "terms": {
            name: {"value": round(float(value), 3), "error": round(float(error), 3), "unit": unit}
            for name, value, error, unit in zip(
                columns, solution, errors, (UNITS[name] for name in columns), strict=True
            )
        },
        "covariance": np.round(covariance, 4).tolist(),
        "scatter_km_s": round(variance**0.5, 3),
        "nebulae": len(velocity),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nebulae", type=Path, required=True, help="the cleaned table, csv")
    parser.add_argument("--solar-motion", choices=["with", "without"], required=True)
    parser.add_argument("--line", choices=["through_origin", "with_intercept"], required=True)
    parser.add_argument("--out", type=Path, required=True, help="where the fit goes, json")
    args = parser.parse_args()

    nebulae = read(args.nebulae)
    columns = terms(nebulae, args.solar_motion == "with", args.line == "with_intercept")
    model = {"solar_motion": args.solar_motion, "line": args.line}
    fit = {"model": model, **solve(columns, nebulae["velocity_km_s"])}
    args.out.write_text(json.dumps(fit, indent=2) + "\n", encoding="utf-8")
    rate = fit["terms"]["K"]
    print(f"K = {rate['value']:.0f} ± {rate['error']:.0f} km/s/Mpc")


if __name__ == "__main__":
    main()
