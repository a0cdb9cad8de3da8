"""The charts of what compare.py measured; those of the README: `python benchmarks/charts.py`."""

import json
from pathlib import Path

from contenders import TITLES
from matplotlib.figure import Figure

FOLDER = Path(__file__).parent


def steps(results):
    """A panel for each set-up: milliseconds per step of each contender, median and quartiles."""
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    axes = figure.subplots(1, len(results))
    for axis, (title, part) in zip(axes, results.items(), strict=True):
        names = list(part["contenders"])[::-1]
        ms = [part["contenders"][name]["ms"] for name in names]
        medians = [value["median"] for value in ms]
        errors = [
            [value["median"] - value["q25"] for value in ms],
            [value["q75"] - value["median"] for value in ms],
        ]
        colors = ["#c44e52" if name == "npvae" else "#c8c8c8" if name == "products" else "#4c72b0" for name in names]
        axis.barh(range(len(names)), medians, xerr=errors, color=colors, ecolor="#404040", height=0.7)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("ms per step", fontsize=9)
        axis.set_yticks(range(len(names)), [TITLES[name] for name in names] if axis is axes[0] else [], fontsize=9)
        axis.tick_params(axis="x", labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    return figure


def growth(results):
    """A panel each for batch size and width: milliseconds of npvae's step, of its products, and at peak."""
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    for axis, (what, rows) in zip(figure.subplots(1, 2), results.items(), strict=True):
        sizes = [row[what] for row in rows]
        for name, label in (
            ("npvae", "npvae"),
            ("products", TITLES["products"]),
            ("peak", "as many operations at the speed of\nlarge square products"),
        ):
            axis.loglog(sizes, [row[name] for row in rows], "o-", markersize=4, label=label)
        axis.set_xticks(sizes, sizes)
        axis.minorticks_off()
        axis.set_xlabel(f"{what} (784-500-20)" if what == "batch size" else f"{what} (batch 100)")
        axis.set_ylabel("ms per step")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    return figure


def draw(results, folder):
    """Write the chart of each part that has one."""
    for part in (steps, growth):
        if part.__name__ in results:
            part(results[part.__name__]).savefig(folder / f"{part.__name__}.png", dpi=150)


if __name__ == "__main__":
    draw(json.loads((FOLDER / "results.json").read_text(encoding="utf-8")), FOLDER.parent / ".github" / "images")
