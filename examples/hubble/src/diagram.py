"""Draw the Hubble diagram of one fit: the nebulae, the line with its band, and what is left over.

The velocities drawn are those measured less the solar motion of the fit, where it has one.
"""

import argparse
import csv
import json
import os
from pathlib import Path

# Before matplotlib is imported: it would keep its font cache in the home directory.
os.environ.setdefault("MPLCONFIGDIR", str(Path(".cache/matplotlib").absolute()))

import matplotlib as mpl
import numpy as np

mpl.use("Agg")

from matplotlib import pyplot as plt

HUBBLE_K = 465  # km/s/Mpc, his solution for 24 nebulae (1929)
INK, LINE, POINTS, MUTED = "#22303c", "#c8553d", "#2f6690", "#8a949e"
# The nebulae worth a name on the figure, with where the name goes: dx, dy in points.
NAMED = {
    "Large Magellanic Cloud": ("LMC", (-6, 9)),
    "NGC 224": ("M 31", (-5, -13)),
    "NGC 5457": ("M 101", (-34, 7)),
    "NGC 3031": ("M 81", (7, -9)),
    "NGC 1068": ("M 77", (8, -2)),
    "NGC 4258": ("M 106", (7, -10)),
    "NGC 4151": ("NGC 4151", (-20, 9)),
    "NGC 4486": ("M 87", (8, -3)),
    "NGC 4649": ("M 60", (8, -3)),
}
STYLE = {
    "font.size": 10.5,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
}


def read(table: Path) -> tuple[list[str], dict[str, np.ndarray]]:
    """The names of the nebulae, and the columns of the cleaned table that are numbers."""
    with table.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    numbers = [name for name in rows[0] if name != "name"]
    columns = {name: np.array([float(row[name]) for row in rows]) for name in numbers}
    return [row["name"] for row in rows], columns


def line(fit: dict, distance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The fitted velocity at each distance and its standard error, km/s, solar motion aside."""
    names = list(fit["terms"])
    kept = [index for index, name in enumerate(names) if name in ("K", "V")]
    columns = {"K": distance, "V": np.ones_like(distance)}
    design = np.column_stack([columns[names[index]] for index in kept])
    values = np.array([fit["terms"][names[index]]["value"] for index in kept])
    covariance = np.array(fit["covariance"])[np.ix_(kept, kept)]
    error = np.sqrt(np.einsum("ni,ij,nj->n", design, covariance, design))
    return design @ values, error


def draw(fit: dict, names: list[str], nebulae: dict[str, np.ndarray]) -> plt.Figure:
    terms = fit["terms"]
    solar = sum(terms[name]["value"] * nebulae[name.lower()] for name in "XYZ" if name in terms)
    distance, velocity = nebulae["distance_mpc"], nebulae["velocity_km_s"] - solar
    grid = np.linspace(0, 2.2, 200)
    fitted, error = line(fit, grid)
    left = velocity - line(fit, distance)[0]

    figure, (main, rest) = plt.subplots(
        2, 1, figsize=(8, 6.6), sharex=True, height_ratios=[3.4, 1], layout="constrained"
    )
    rate = terms["K"]
    label = f"this fit: K = {rate['value']:.0f} ± {rate['error']:.0f} km/s/Mpc"
    main.fill_between(grid, fitted - error, fitted + error, color=LINE, alpha=0.16, lw=0)
    main.plot(grid, fitted, color=LINE, lw=2.2, label=label)
    main.plot(
        grid, HUBBLE_K * grid, color=INK, lw=1.2, ls=(0, (6, 4)),
        label=f"Hubble 1929, 24 nebulae: K = {HUBBLE_K} ± 50",
    )  # fmt: skip
    scatter = {"s": 42, "color": POINTS, "edgecolor": "white", "linewidth": 0.8, "zorder": 3}
    main.scatter(distance, velocity, **scatter)
    for name, x, y in zip(names, distance, velocity, strict=True):
        if name in NAMED:
            text, offset = NAMED[name]
            main.annotate(
                text, (x, y), offset, textcoords="offset points", fontsize=8.5, color=MUTED
            )
    with_sun = fit["model"]["solar_motion"] == "with"
    main.set_title("Velocity and distance among the nebulae", loc="left", fontsize=15, pad=24)
    subtitle = "corrected for the Sun's own motion" if with_sun else "as measured"
    main.text(
        0, 1.025, f"24 nebulae of Hubble's paper of 1929, velocities {subtitle}",
        transform=main.transAxes, color=MUTED,
    )  # fmt: skip
    main.set_ylabel("velocity, km/s")
    main.set_ylim(-420, 1290)
    main.set_yticks(range(-250, 1251, 250))
    main.legend(loc="upper left", frameon=False, borderaxespad=0.2)

    rest.axhline(0, color=LINE, lw=1.4)
    rest.fill_between(grid, -error, error, color=LINE, alpha=0.16, lw=0)
    rest.vlines(distance, 0, left, color=POINTS, lw=1, alpha=0.5)
    rest.scatter(distance, left, **scatter | {"s": 26})
    rest.set_ylabel("residual, km/s")
    rest.set_ylim(-600, 600)
    rest.set_yticks([-400, 0, 400])
    rest.set_xlabel("distance, Mpc")
    rest.set_xlim(0, 2.2)
    for axes in (main, rest):
        axes.grid(axis="y", color=MUTED, alpha=0.18, lw=0.8)
        axes.set_axisbelow(True)
    figure.align_ylabels()
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nebulae", type=Path, required=True, help="the cleaned table, csv")
    parser.add_argument("--fit", type=Path, required=True, help="the fit, json")
    parser.add_argument("--out", type=Path, required=True, help="where the figure goes, png")
    args = parser.parse_args()

    with plt.rc_context(STYLE):
        figure = draw(json.loads(args.fit.read_text(encoding="utf-8")), *read(args.nebulae))
        figure.savefig(args.out, dpi=160)
    print(f"the figure of {args.fit.parent.name or 'this fit'} is drawn")


if __name__ == "__main__":
    main()
