"""Runs side by side: what differs in their settings, what came of it, and their learning curves in one picture."""

import dataclasses
import itertools
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

from npvae.commands import UserError
from npvae.config import EXTENDABLE, Config, as_text, spelled
from npvae.evaluate import ENOUGH
from npvae.files import replacing
from npvae.runs import Run, finite_number

# of Okabe & Ito 2008, without the yellow, which is too light for a line; with the styles, for 28 runs
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLES = ("-", "--", ":", "-.")
TELL_NOTHING = {*EXTENDABLE} - {"dataset"}  # the epochs that were finished are a result, the others change no number
AS_IT_IS = {"text.parse_math": False}  # a $ in the name of a run is no formula
SHORT = 36  # characters of what differs, up to which that is the name in the legend


def panels(figure, loss):
    """Axes for the curves of the loss, which the word `loss` names, and of its two terms: (axes, term) for each."""
    titles = {"loss": loss, "reconstruction": "reconstruction, −E log p(x|z)", "kl": "KL(q(z|x) ‖ p(z))"}
    for axes, (term, title) in zip(figure.subplots(1, 3), titles.items(), strict=True):
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.xaxis.get_major_locator().set_params(integer=True)
        yield axes, term
    figure.axes[0].set_ylabel("nats per example")


def compare(folders, out):
    """Draw the learning curves of the runs to `out`; returns lines that say what differs in settings and results."""
    paths = [Path(folder).resolve() for folder in folders]
    for i, path in enumerate(paths):
        if path in paths[:i]:
            raise UserError(f"{folders[i]} is given twice")
    runs = dict(zip(short_names(paths), map(Run.open, folders), strict=True))
    metrics = {name: run.metrics() for name, run in runs.items()}
    if not any(metrics.values()):
        raise UserError("none of the runs has finished an epoch: there is nothing to compare")
    configs = {name: run.config for name, run in runs.items()}
    differing = differences(configs)
    warning, results = incomparable(configs.values()), list(result_table(runs, metrics))  # all is read before the write

    Path(out).parent.mkdir(parents=True, exist_ok=True)
    with rc_context(AS_IT_IS), replacing(out) as file:
        figure = curves(metrics, legend(differing), bound(configs.values()), warning)
        figure.savefig(file, format="png", dpi=120, bbox_inches="tight")
    lines = []
    if any(differing.values()):
        settings = next(iter(differing.values()))
        lines += table([["run", *settings], *([name, *values.values()] for name, values in differing.items())], "<")
    else:
        lines.append("The settings are the same.")
    lines += [
        "",
        *results,
        "",
        f"Nats per example of the test sets after the last epoch; the loss is {bound(configs.values())}.",
    ]
    return [*lines, *filter(None, [warning]), str(out)]


def short_names(paths):
    """As many of the last parts of each path as tell them all apart."""
    for count in itertools.count(1):
        # a name need not be UTF-8
        names = [str(Path(*path.parts[-count:])).encode(errors="backslashreplace").decode() for path in paths]
        if len(set(names)) == len(paths):
            return names


def differences(configs):
    """The settings that are not the same in all runs: for each run a dict from the name of an option to its value."""
    names = [
        field.name
        for field in dataclasses.fields(Config)
        if field.name not in TELL_NOTHING and len({getattr(config, field.name) for config in configs.values()}) > 1
    ]
    return {run: {spelled(name): as_text(getattr(config, name)) for name in names} for run, config in configs.items()}


def incomparable(configs):
    """A line that says why the losses are not about the same thing, or None where they are."""
    meanings = [
        {
            "dataset": config.dataset,
            # the test images of both are the same draw
            "binarize": "fixed" if config.binarize == "dynamic" else config.binarize,
            "likelihood": config.likelihood,
            "conditional": config.conditional,
            "bound": config.bound,
        }
        for config in configs
    ]
    names = [name for name in meanings[0] if len({meaning[name] for meaning in meanings}) > 1]
    return f"These losses cannot be compared: the runs differ in {', '.join(names)}." if names else None


def bound(configs):
    return " or ".join(dict.fromkeys(config.bound for config in configs))


def result_table(runs, metrics):
    """What came of the runs: lines; blank is what there is not."""
    rows = [["run", "epochs", "test loss", "reconstruction", "KL", "seconds", "−log p(x)", "active"]]
    for name, run in runs.items():
        finished, planned = len(metrics[name]), run.config.epochs
        row = [name, str(finished) if finished == planned else f"{finished}/{planned}"]
        if finished:
            last = metrics[name][-1]
            row += [f"{last[f'test_{term}']:.2f}" for term in ("loss", "reconstruction", "kl")]
            row += [f"{last['seconds']:,.0f}", *evaluation(run, finished)]
        rows.append(row + [""] * (len(rows[0]) - len(row)))
    kept = [i for i in range(len(rows[0])) if any(row[i] for row in rows[1:])]
    return table([[row[i] for i in kept] for row in rows], ">")


def evaluation(run, epochs):
    """−log p(x), and active units, of the evaluation after so many epochs; blank where there is none."""

    def pick(result):
        if finite_number(result["epochs"]) != epochs:
            return None
        samples, estimate = finite_number(result["importance_samples"]), result["negative_log_likelihood"]
        return (
            f"{finite_number(estimate['mean']):.2f}" if samples >= ENOUGH else "",
            f"{finite_number(result['active_units']):.0f}",
        )

    return run.evaluated(pick) or ("", "")


def table(rows, align):
    """The rows as lines, in columns as wide as they need be, the first flush left and the others as `align` says."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (
            f"{text:{align if i else '<'}{width}}" for i, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        yield "  ".join(cells).rstrip()


def legend(differing):
    """A label for each run: what differs, where that is short and tells the runs apart, else its name."""
    labels = {run: ", ".join(map(" ".join, settings.items())) for run, settings in differing.items()}
    short = max(map(len, labels.values())) <= SHORT
    return labels if short and len(set(labels.values())) == len(labels) else {run: run for run in labels}


def curves(metrics, labels, loss, warning):
    """The terms of the test loss of each run that has finished an epoch, over one another."""
    drawn = {name: rows for name, rows in metrics.items() if rows}
    columns = max(1, min(len(drawn), 110 // (6 + max(len(labels[name]) for name in drawn))))  # of the legend
    height = 3.4 + 0.2 * -(-len(drawn) // columns) + 0.3 * bool(warning)
    figure = Figure(figsize=(9.6, height), layout="constrained")
    for axes, term in panels(figure, f"test loss ({loss})"):
        for (name, rows), (style, colour) in zip(drawn.items(), itertools.cycle(itertools.product(STYLES, COLOURS))):
            epochs, values = [row["epoch"] for row in rows], [row[f"test_{term}"] for row in rows]
            dot = "o" if len(rows) == 1 else None  # which else has no line
            axes.plot(epochs, values, color=colour, linestyle=style, marker=dot, linewidth=1.5, label=labels[name])
    handles, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=columns, frameon=False, fontsize=9)
    if warning:
        figure.suptitle(warning, fontsize=10, color=COLOURS[1])
    return figure
