"""Table 1 of Burda et al. (2016), one stochastic layer: −log p(x) of models with 50 latents: `python paper/table1.py`.

Everything is done by the commands of npvae, one run for each row and seed; what is finished is not done again, and what
was interrupted goes on. The schedule is not that of the paper (3,280 epochs with batches of 20): see the README here.
"""

import contextlib
import json
import os
import sys

from processes import in_processes
from tables import FOLDER, RUNS, of, read_table, update_table

from npvae import evaluate, train
from npvae.commands import OneLineParser, UserError, command, positive, say
from npvae.files import read_text, replacing

PROGRAM = "python paper/table1.py"
TABLE = FOLDER / "table1.csv"
KEY = ("model", "epochs", "seed", "samples", "noise_seed")
SETUP = "--dataset mnist --binarize dynamic --hidden 200 200 --latent 50 --batch-size 100"
MODELS = {  # how each is trained: on the bounds of the table, by gradients of less variance than its authors'
    "vae-1": "--objective stl",
    "iwae-5": "--objective iwae-dreg --samples 5",
    "iwae-50": "--objective iwae-dreg --samples 50",
}
# the learning rate from these shares of the epochs on
RATES = {0: 2e-3, 0.375: 1.4e-3, 0.525: 1e-3, 0.65: 7e-4, 0.75: 5e-4, 0.825: 3.5e-4, 0.8875: 2.5e-4}
RATES |= {0.9375: 1.6e-4, 0.975: 1e-4}
PUBLISHED = {
    "vae-1": ("VAE, k = 1", 86.76, 19),
    "iwae-5": ("IWAE, k = 5", 85.54, 22),
    "iwae-50": ("IWAE, k = 50", 84.78, 25),
}
SAMPLES = 5000  # K, as published
NOISES = (1, 2)  # seeds of the evaluation, which is done twice: how much does it depend on its samples?


def settings(model, seed, epochs):
    """The options of `npvae.train` for a model, a list."""
    first, *stages = [(round(share * epochs), rate) for share, rate in RATES.items()]
    schedule = " ".join(f"{start}:{rate:g}" for start, rate in stages)
    rates = f"--learning-rate {first[1]:g} --learning-rate-schedule {schedule}"
    return f"{SETUP} {MODELS[model]} {rates} --epochs {epochs} --seed {seed}".split()


def run(main, *arguments):
    """Run a command of npvae, but for what it prints."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        code = main([str(argument) for argument in arguments])
    if code:  # it has said why
        raise UserError(f"stopped with {code}: {' '.join(map(str, arguments))}")


def evaluated(folder, samples, noise):
    """What `npvae.evaluate` says of a run with these samples of z, a dict; it is kept, and not computed again."""
    kept = folder / f"evaluation-{noise}.json"
    with contextlib.suppress(FileNotFoundError, ValueError, KeyError, TypeError):  # there is none yet, or it is broken
        result = json.loads(read_text(kept))
        if result["importance_samples"] == samples:
            return result
    run(evaluate.main, folder, "--importance-samples", samples, "--noise-seed", noise)
    text = read_text(folder / "evaluation.json")
    with replacing(kept) as file:
        file.write(text.encode())
    return json.loads(text)


def measured(model, seed, epochs, samples):
    """Train a model, or go on, and evaluate it with each noise: its rows of the table."""
    folder = RUNS / f"{model}-{epochs}-{seed}"
    if (folder / "config.json").exists():
        run(train.main, "--resume", folder)
    else:
        run(train.main, *settings(model, seed, epochs), "--out", folder)
    minutes = read_table(folder / "metrics.csv")[-1]["seconds"] / 60
    rows = []
    for noise in NOISES:
        result = evaluated(folder, samples, noise)
        nll = result["negative_log_likelihood"]
        row = {"model": model, "seed": seed, "epochs": epochs, "samples": samples, "noise_seed": noise}
        row |= {"minutes": round(minutes), "elbo_loss": round(result["elbo_loss"]["mean"], 2)}
        row |= {"nll": round(nll["mean"], 2), "standard_error": round(nll["standard_error"], 2)}
        rows.append(row | {"active_units": result["active_units"]})
    return rows


def compare(rows):
    """Lines of a table in Markdown: what was published, and each run as it was evaluated."""
    yield "| | seed | epochs, batch | minutes | −ELBO | −log p(x) | again, other samples | active units |"
    yield "|---|---|---|---:|---:|---:|---:|---:|"
    for model, (title, nll, active) in PUBLISHED.items():
        yield f"| {title}, Burda et al. | | 3,280 of 20 | | | {nll} | | {active} |"
        runs = dict.fromkeys((row["epochs"], row["seed"]) for row in of(rows, model=model, samples=SAMPLES))
        for epochs, seed in runs:
            one, *others = of(rows, model=model, samples=SAMPLES, epochs=epochs, seed=seed)
            again = ", ".join(f"{other['nll']:.2f}" for other in others)
            yield (
                f"| npvae, `{model}` | {seed} | {epochs} of 100 | {one['minutes']} | {one['elbo_loss']:.2f} "
                f"| {one['nll']:.2f} ± {one['standard_error']:.2f} | {again} "
                f"| {one['active_units']} |"
            )


@command(PROGRAM)
def main(arguments=None):
    parser = OneLineParser(PROGRAM, __doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"of {', '.join(MODELS)} (default: all)")
    parser.add_argument("--seeds", type=lambda text: positive(text, 0), nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=lambda text: positive(text, 40), default=800)
    parser.add_argument(
        "--samples", type=lambda text: positive(text, evaluate.ENOUGH), default=SAMPLES, help=f"K (default: {SAMPLES})"
    )
    parser.add_argument("--jobs", type=positive, default=2, help="processes, one thread each (default: 2)")
    options = parser.parse_args(arguments)
    for model in options.models:
        if model not in MODELS:
            parser.error(f"no model {model}: expected {', '.join(MODELS)}")
    tasks = [
        (model, seed, options.epochs, options.samples) for seed in options.seeds for model in options.models or MODELS
    ]
    update_table(TABLE, [], KEY)  # where it is broken, that is said now and not after hours
    for _, rows in in_processes(measured, tasks, options.jobs):
        for row in rows:
            say(", ".join(f"{name} {value}" for name, value in row.items()))
        update_table(TABLE, rows, KEY)
    print(*compare(read_table(TABLE)), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
