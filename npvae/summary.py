"""What came of a sweep: a table of the mean and the spread over the seeds, as text and CSV, and a picture."""

import csv
import io
import math
import statistics

from matplotlib import rc_context
from matplotlib.figure import Figure

from npvae.comparison import AS_IT_IS, bound, incomparable, table
from npvae.config import as_text, spelled
from npvae.evaluate import ENOUGH
from npvae.files import replacing
from npvae.plot import HIGHEST, TEST, TRAIN

DECIMALS = {"active_units": 1}  # in the text; of all others, 2
ROOM = 0.1  # of an axis, at least, from one number to the next
LINE = 0.26  # inches of a row of a picture
SHORT = 40  # characters of a label


def write(folder, plan, results):
    """Write table.txt, table.csv and table.png to the folder of a sweep; returns the lines of the first, and more.

    `results` has a row for each point of the plan's grid, in it for each seed a dict of name to number, or None.
    """
    configs = [plan.config(point, plan.seeds[0]) for point in plan.points()]
    headings = measures(plan, configs)
    lines = [*text(plan, configs, results, headings), "", *notes(plan, configs)]
    with replacing(folder / "table.txt") as file:
        file.write("".join(f"{line}\n" for line in lines).encode())
    with replacing(folder / "table.csv") as file:
        file.write(as_csv(plan, configs, results, headings).encode())
    path = folder / "table.png"
    if not any(found for row in results for found in row):
        path.unlink(missing_ok=True)
        return [*lines, f"{folder / 'table.txt'}, table.csv; no run has finished, so that there is nothing to be drawn"]
    with rc_context(AS_IT_IS), replacing(path) as file:
        picture(plan, configs, results, headings).savefig(file, format="png", dpi=120, bbox_inches="tight")
    return [*lines, f"{folder / 'table.txt'}, table.csv and table.png"]


def measures(plan, configs):
    """What is in the columns: name → heading."""
    headings = {"test_loss": "test loss", "test_reconstruction": "reconstruction", "test_kl": "KL"}
    samples = plan.importance_samples
    if samples:
        evidence = " or ".join(dict.fromkeys(config.evidence for config in configs))
        headings["iwae_loss"] = f"−log {evidence}" if samples >= ENOUGH else f"−IWAE, K = {samples}"
        headings["active_units"] = "active"
    return headings | {"minutes": "minutes"}


def mean_and_spread(row, name):
    """Mean and standard deviation, with N − 1, over the seeds that have finished; None where they are too few."""
    values = [found[name] for found in row if found]
    return (statistics.fmean(values) if values else None, statistics.stdev(values) if len(values) > 1 else None)


def text(plan, configs, results, headings):
    """The table, in lines."""

    def cell(row, name):
        mean, spread = (
            None if value is None else f"{value:.{DECIMALS.get(name, 2)}f}" for value in mean_and_spread(row, name)
        )
        return f"{mean} ± {spread}" if spread and name != "minutes" else mean or ""

    several = len({config.bound for config in configs}) > 1
    rows = [[*map(spelled, plan.vary), *["bound"] * several, "runs", *headings.values()]]
    for point, config, row in zip(plan.points(), configs, results, strict=True):
        finished = sum(found is not None for found in row)
        runs = str(finished) if finished == len(row) else f"{finished}/{len(row)}"
        settings = [*map(as_text, point.values()), *[config.bound] * several]
        rows.append([*settings, runs, *(cell(row, name) for name in headings)])
    return list(table(rows, ">"))


def notes(plan, configs):
    """What the numbers are, in lines."""
    seeds = ", ".join(map(str, plan.seeds))
    yield f"Nats per example of the test set after the last epoch; the loss is {bound(configs)}."
    yield (
        f"Mean ± standard deviation over the seeds {seeds}."
        if len(plan.seeds) > 1
        else f"One run each, with seed {seeds}."
    )
    if warning := incomparable(configs):
        yield warning


def as_csv(plan, configs, results, headings):
    """A row for each setting: how many runs have finished and failed, the mean of each measure, and its spread."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    names = {name: name for name in headings}
    if (plan.importance_samples or 0) >= ENOUGH:
        names["iwae_loss"] = "negative_log_likelihood"
    columns = [f"{name}_{what}" for name in names.values() for what in ("mean", "sd")]
    writer.writerow([*plan.vary, "bound", "finished", "failed", *columns])
    for point, config, row in zip(plan.points(), configs, results, strict=True):
        failed = sum(found is None for found in row)
        numbers = [value for name in names for value in mean_and_spread(row, name)]
        counts = [config.bound, len(row) - failed, failed]
        numbers = ["" if value is None else f"{value:.6f}" for value in numbers]
        writer.writerow([*map(as_text, point.values()), *counts, *numbers])
    return file.getvalue()


def picture(plan, configs, results, headings):
    """The mean of each setting, and each seed, over the setting where it is a number, else a row for each."""
    shown = {"test_loss": f"test loss ({bound(configs)})"}
    shown |= {name: heading for name, heading in headings.items() if name == "iwae_loss"}
    points = [list(point.values()) for point in plan.points()]
    is_number = len(plan.vary) == 1 and all(type(value) in (int, float) for (value,) in points)
    failed = []
    if is_number:  # one that has failed has no place on an axis that the others share
        pairs = list(zip(points, results, strict=True))
        failed = [as_text(value) for (value,), row in pairs if not any(row)]
        points, results = zip(*((point, row) for point, row in pairs if any(row)), strict=True)
    places = [value for (value,) in points] if is_number else list(range(len(points)))
    warning = incomparable(configs)
    height = (4 if is_number else 1.5 + LINE * len(points)) + 0.3 * bool(warning)
    figure = Figure(figsize=(6.4 if len(shown) == 1 else 9.6, min(height, HIGHEST)), layout="constrained")
    both = figure.subplots(1, len(shown), squeeze=False, sharey=not is_number)[0]
    for axes, (name, title) in zip(both, shown.items(), strict=True):
        draw(axes, places, [[found[name] for found in row if found] for row in results], is_number)
        axes.set_title(title, fontsize=10)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        settings, losses = (axes.xaxis, axes.yaxis) if is_number else (axes.yaxis, axes.xaxis)
        if is_number and min(places) > 0 and max(places) >= 10 * min(places):
            axes.set_xscale("log")
            axes.minorticks_off()
        if is_number:
            kept = readable(places, math.log if axes.get_xscale() == "log" else float)
        else:
            kept = range(0, len(points), math.ceil(LINE * len(points) / HIGHEST))
        labels = [shortened(", ".join(map(as_text, points[i]))) + ": failed" * (not any(results[i])) for i in kept]
        settings.set_ticks([places[i] for i in kept], labels)
        losses.set_label_text("nats per example")
        if is_number or axes is both[0]:
            settings.set_label_text(
                ", ".join(map(spelled, plan.vary)) + f" (failed: {', '.join(failed)})" * bool(failed)
            )
    if not is_number:
        both[0].set_ylim(len(points) - 0.5, -0.5)  # the first on top, as in the table
    handles, names = both[0].get_legend_handles_labels()
    if len(names) > 1:
        figure.legend(handles, names, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    if warning:
        figure.suptitle(warning, fontsize=10, color=TEST)
    return figure


def draw(axes, places, values, is_number):
    """Draw lists of values, one at each place; places are along x where they are numbers, else along y."""

    def plot(points, *style, **more):
        along, across = zip(*points, strict=True)
        axes.plot(*((along, across) if is_number else (across, along)), *style, **more)

    found = [(place, row) for place, row in sorted(zip(places, values, strict=True)) if row]
    means = [(place, statistics.fmean(row)) for place, row in found]
    plot(means, "-D" if is_number else "D", color=TEST, markersize=5, linewidth=1, label="mean")
    if any(len(row) > 1 for _, row in found):
        dots = [(place, value) for place, row in found for value in row]
        plot(dots, "o", color=TRAIN, markersize=4, alpha=0.6, label="one seed")


def readable(places, scale):
    """The indices of those numbers that have room for a label on an axis."""
    order = sorted(range(len(places)), key=places.__getitem__)
    length = scale(places[order[-1]]) - scale(places[order[0]])
    kept = order[:1]
    for i in order[1:]:
        if scale(places[i]) - scale(places[kept[-1]]) >= ROOM * length:
            kept.append(i)
    return kept


def shortened(label):
    return label if len(label) <= SHORT else "…" + label[1 - SHORT :]
