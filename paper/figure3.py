"""Figure 3: AEVB, wake-sleep and Monte Carlo EM, log p(x) against training examples: `python paper/figure3.py`."""

import sys

import numpy as np
from marginal import log_likelihoods
from matplotlib.figure import Figure
from race import Racer, race_for
from tables import FOLDER, NAMES, nats, of, published, published_at

from npvae.commands import command
from npvae.data.pixels import batch

PROGRAM = "python paper/figure3.py"
TABLE, PICTURE = FOLDER / "figure3.csv", FOLDER / "figure3.png"
COLOURS = {"aevb": "#0072B2", "wake-sleep": "#D55E00", "mcem": "#CC79A7"}  # of the methods
RACERS = [Racer("mnist", examples, 100, 3, method, start="code") for examples in (1000, 50_000) for method in COLOURS]
FIXED_RATES = (0.02, 0.01)  # of AEVB on all images, besides the rate that the rule chooses
RACERS += [Racer("mnist", 50_000, 100, 3, "aevb", start="code", fixed_rate=rate) for rate in FIXED_RATES]
MILLIONS = (0.3, 1, 2, 3, 5, 7, 10, 15, 20, 30, 45, 60)
MARKS = [round(1e6 * mark) for mark in MILLIONS]  # examples at which log p(x) is measured
MEASURED = 1000  # of the training and of the test set, the first
SEED = 4


def marginals(race, images):
    """log p(x) of the first of these images, nats per example, and what importance sampling says of it, ending in _is.

    The same random numbers each time: what differs between two rows of the table is due to the models.
    """
    estimates = log_likelihoods(race.vae, batch(images[:MEASURED]), np.random.default_rng(SEED))
    return {ending: estimate.mean().item() for ending, estimate in zip(("", "_is"), estimates, strict=True)}


def draw(rows):
    """log p(x) over the published curves, which are pale: test solid, training dotted."""
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    lines = {}
    for axis, examples in zip(figure.subplots(1, 2), (1000, 50_000), strict=True):
        for method, colour in COLOURS.items():
            for split, style in (("test", "-"), ("train", ":")):
                x, y = published(3, "MNIST", examples, method, split)
                axis.plot(np.array(x) / 1e6, y, style, color=colour, alpha=0.35, linewidth=2.5)
                for rate in (0, *FIXED_RATES):
                    ours = of(rows, training_examples=examples, method=method, fixed_rate=rate)
                    x, y = [row["examples"] / 1e6 for row in ours], [row[split] for row in ours]
                    (line,) = axis.plot(x, y, style, color=colour, linewidth=0.7 if rate else 1.5)
                    lines.setdefault(f"{NAMES[method]}, {split}", line)
        axis.set(xlim=(0, 62), ylim=(-165, -100), title=f"{examples:,} training images")
        axis.set_xlabel("training examples evaluated, millions")
        axis.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("log p(x), nats per image")
    title = "pale: as published\nthin: learning rates\n" + " and ".join(map(str, FIXED_RATES))
    figure.legend(lines.values(), lines, loc="outside right center", frameon=False, title=title)
    figure.savefig(PICTURE, dpi=130)


def compare(rows):
    """Lines of a table in Markdown: where each racer is now, and what was published there."""
    yield "| images | method | learning rate | examples | train | published | test | published | minutes |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for racer in RACERS:
        for row in of(rows, **vars(racer))[-1:]:
            train, test = (
                published_at(row["examples"], 3, "MNIST", racer.training_examples, racer.method, split)
                for split in ("train", "test")
            )
            yield (
                f"| {racer.training_examples:,} | {NAMES[racer.method]} | {row['learning_rate']:g} "
                f"| {row['examples'] / 1e6:.1f} M | {nats(row['train'])} | {nats(train)} "
                f"| {nats(row['test'])} | {nats(test)} | {row['minutes']:.0f} |"
            )


@command(PROGRAM)
def main(arguments=None):
    rows = race_for(PROGRAM, __doc__, RACERS, MARKS, 6e7, marginals, TABLE, arguments)
    draw(rows)
    print(*compare(rows), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
