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
FIXED_RATE = 0.01  # chosen for these, where the trials have their own number of latents, not 20:
RACERS += [Racer("mnist", *SETUPS["mnist"], n, "aevb", start="code", fixed_rate=FIXED_RATE) for n in (10, 3, 5)]
TITLES = {"mnist": "MNIST", "frey": "Frey faces"}
PUBLISHED = {"mnist": "MNIST", "frey": "Frey Face"}
MARKS = [10_000 * round(10 ** (1 + i / 8)) for i in range(8 * 3 + 1)]  # examples at which the bound is measured
EXAMPLES = 1e7  # to which all race
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
                        ours = of(rows, start=start, fixed_rate=0, **racer)
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
    """Lines of a table in Markdown: the test bound of each racer, and how far it is above the published curve."""
    titles = [f"{NAMES[method]}, {optimizer.capitalize()}" for method, optimizer in CURVES]
    yield f"| | latents | start | {' | '.join(titles)} |"
    yield f"|---|---:|---|{'---|' * len(CURVES)}"
    for dataset, latents in LATENTS.items():
        for latent in sorted(latents):
            for start, rate in (("paper", 0), ("code", 0), ("code", FIXED_RATE)):
                setup = {"dataset": dataset, "latent": latent, "start": start, "fixed_rate": rate}
                cells = [cell(of(rows, method=method, optimizer=optimizer, **setup)) for method, optimizer in CURVES]
                if any(cells):
                    title = f"{start}, learning rate {rate}" if rate else start
                    yield f"| {TITLES[dataset]} | {latent} | {title} | {' | '.join(cells)} |"


def cell(rows):
    """What the table says of a racer with these rows: where it is at EXAMPLES, or before, and where if it went on."""
    goal = [row for row in rows if row["examples"] <= EXAMPLES][-1:]
    beyond = [row for row in rows if row["examples"] > EXAMPLES][-1:]
    return "; ".join(map(at_mark, goal + beyond))


def at_mark(row):
    """The test bound of a row, how far it is above the published curve, and after how many examples if not EXAMPLES."""
    theirs = published_at(row["examples"], 2, PUBLISHED[row["dataset"]], row["latent"], row["method"], "test")
    reached = "" if row["examples"] == EXAMPLES else f" at {row['examples'] / 1e6:.3g} M"
    return f"{nats(row['test'])} ({nats(row['test'] - theirs, '+')}){reached}"


@command(PROGRAM)
def main(arguments=None):
    rows = race_for(PROGRAM, __doc__, RACERS, MARKS, EXAMPLES, elbo, TABLE, arguments)
    draw(rows)
    print(*compare(rows), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
