"""Figure 2: AEVB against wake-sleep, the bound against the number of training examples: `python paper/figure2.py`."""

import sys

from matplotlib.figure import Figure
from race import STARTS, Racer, elbo, race_for
from tables import FOLDER, NAMES, nats, of, published, published_at

from npvae.commands import command

PROGRAM = "python paper/figure2.py"
TABLE, PICTURE = FOLDER / "figure2.csv", FOLDER / "figure2.png"
LATENTS = {"mnist": (20, 10, 3, 5, 200), "frey": (20, 10, 2, 5)}
SETUPS = {"mnist": (50_000, 500), "frey": (1600, 200)}  # training examples, hidden units
CURVES = {("aevb", "adagrad"): "#0072B2", ("wake-sleep", "adagrad"): "#D55E00", ("aevb", "adam"): "#009E73"}
RACERS = [
    Racer(dataset, *SETUPS[dataset], latent, method, optimizer, start)
    for start in STARTS
    for dataset, latents in LATENTS.items()
    for latent in latents
    for method, optimizer in CURVES
]
TITLES = {"mnist": "MNIST", "frey": "Frey faces"}
PUBLISHED = {"mnist": "MNIST", "frey": "Frey Face"}
MARKS = [10_000 * round(10 ** (1 + i / 8)) for i in range(8 * 3 + 1)]  # examples at which the bound is measured
WIDTHS = {"paper": 1.4, "code": 0.6}  # of our lines, by their start
LIMITS = {"mnist": (-150, -95), "frey": (300, 1600)}


def draw(rows):
    """The bounds over the published ones, which are pale: test solid, training dotted."""
    figure = Figure(figsize=(11, 5.4), layout="constrained")
    axes = figure.subplots(2, 5)
    lines = {}
    for i, (dataset, latents) in enumerate(LATENTS.items()):
        for axis, latent in zip(axes[i], sorted(latents), strict=False):
            axis.set_title(f"{TITLES[dataset]}, {latent} latents", fontsize=10)
            for (method, optimizer), colour in CURVES.items():
                for split, style in (("test", "-"), ("train", ":")):
                    if optimizer == "adagrad":
                        x, y = published(2, PUBLISHED[dataset], latent, method, split)
                        axis.plot(x, y, style, color=colour, alpha=0.35, linewidth=2.5 if split == "test" else 1.5)
                    racer = {"dataset": dataset, "latent": latent, "method": method, "optimizer": optimizer}
                    for start in STARTS if split == "test" else ["paper"]:
                        ours = of(rows, start=start, **racer)
                        x, y = [row["examples"] for row in ours], [row[split] for row in ours]
                        (line,) = axis.plot(x, y, style, color=colour, linewidth=WIDTHS[start])
                        lines.setdefault(f"{NAMES[method]}, {optimizer.capitalize()}, {split}", line)
            axis.set(xscale="log", xlim=(1e5, 1.2e8), ylim=LIMITS[dataset])
            axis.tick_params(labelsize=8)
            axis.spines[["top", "right"]].set_visible(False)
        axes[i][0].set_ylabel("ELBO, nats per image", fontsize=9)
    for axis in axes[1]:
        axis.set_xlabel("training examples evaluated", fontsize=9)
    axes[1][4].axis("off")
    axes[1][4].legend(
        lines.values(),
        lines,
        loc="center",
        fontsize=8,
        frameon=False,
        title="pale: as published\nthin: start of the authors' code",
    )
    figure.savefig(PICTURE, dpi=130)


def compare(rows):
    """Lines of a table in Markdown: the test bound of each racer where it is now, and what was published there."""
    yield (
        "| | latents | method | optimizer | start | learning rate | examples | test ELBO | published | difference "
        "| minutes |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|---|"
    for racer in RACERS:
        for row in of(rows, **vars(racer))[-1:]:
            theirs = published_at(row["examples"], 2, PUBLISHED[racer.dataset], racer.latent, racer.method, "test")
            yield (
                f"| {TITLES[racer.dataset]} | {racer.latent} | {NAMES[racer.method]} | {racer.optimizer.capitalize()} "
                f"| {racer.start} | {row['learning_rate']:g} | {row['examples'] / 1e6:g} M | {nats(row['test'])} "
                f"| {nats(theirs)} | {nats(row['test'] - theirs, '+')} | {row['minutes']:.0f} |"
            )


@command(PROGRAM)
def main(arguments=None):
    rows = race_for(PROGRAM, __doc__, RACERS, MARKS, 1e7, elbo, TABLE, arguments)
    draw(rows)
    print(*compare(rows), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
