"""Table 1 of Burda et al. (2016), one stochastic layer: −log p(x) of models with 50 latents: `python paper/table1.py`.

Everything is done by the commands of npvae, one run for each row and seed; what is finished is not done again, and what
was interrupted goes on. The schedule is not that of the paper (3,280 epochs with batches of 20): see the README here.
"""

import csv
import json
import os
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from tables import FOLDER, update_table

from npvae.commands import OneLineParser, UserError, command, positive, say

PROGRAM = "python paper/table1.py"
TABLE, RUNS = FOLDER / "table1.csv", FOLDER / "runs"
SETUP = "--dataset mnist --binarize dynamic --hidden 200 200 --latent 50 --batch-size 100"
MODELS = {  # of a row of the table: how it is trained, and what Burda et al. found: −log p(x), active units
    "vae-1": ("--objective stl", 86.76, 19),
    "iwae-5": ("--objective iwae-dreg --samples 5", 85.54, 22),
    "iwae-50": ("--objective iwae-dreg --samples 50", 84.78, 25),
}
# the learning rate from these shares of the epochs on
RATES = {0: 2e-3, 0.375: 1.4e-3, 0.525: 1e-3, 0.65: 7e-4, 0.75: 5e-4, 0.825: 3.5e-4, 0.8875: 2.5e-4}
RATES |= {0.9375: 1.6e-4, 0.975: 1e-4}


def train(model, seed, epochs):
    """The arguments of `npvae.train` for a row of the table."""
    first, *stages = [(round(share * epochs), rate) for share, rate in RATES.items()]
    schedule = " ".join(f"{start}:{rate:g}" for start, rate in stages)
    rates = f"--learning-rate {first[1]:g} --learning-rate-schedule {schedule}"
    return f"{SETUP} {MODELS[model][0]} {rates} --epochs {epochs} --seed {seed}"


def npvae(arguments):
    """Run a command of npvae with one thread."""
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-m", *shlex.split(arguments)]
    if subprocess.run(command, env=environment, stdout=subprocess.DEVNULL).returncode:  # it has said why
        raise UserError(f"{arguments} failed")


def measured(model, seed, epochs, samples):
    """Train a model, or go on, and evaluate it: a row of the table."""
    folder = RUNS / f"{model}-{epochs}-{seed}"
    begun = (folder / "config.json").exists()
    npvae(f"npvae.train --resume {folder}" if begun else f"npvae.train {train(model, seed, epochs)} --out {folder}")
    kept = folder / "evaluation.json"
    if not kept.exists() or json.loads(kept.read_text())["importance_samples"] < samples:
        npvae(f"npvae.evaluate {folder} --importance-samples {samples} --json")
    result = json.loads(kept.read_text())
    with open(folder / "metrics.csv", encoding="utf-8") as file:
        minutes = float(list(csv.DictReader(file))[-1]["seconds"]) / 60
    nll = result["negative_log_likelihood"]
    row = {"model": model, "seed": seed, "epochs": epochs, "minutes": round(minutes), "samples": samples}
    row |= {"elbo_loss": round(result["elbo_loss"]["mean"], 2), "nll": round(nll["mean"], 2)}
    return row | {"standard_error": round(nll["standard_error"], 2), "active_units": result["active_units"]}


@command(PROGRAM)
def main(arguments=None):
    parser = OneLineParser(PROGRAM, __doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"of {', '.join(MODELS)} (default: all)")
    parser.add_argument("--seeds", type=lambda text: positive(text, 0), nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=positive, default=800)
    parser.add_argument("--samples", type=positive, default=5000, help="K of the estimate (default: 5000)")
    parser.add_argument("--jobs", type=positive, default=2, help="processes, one thread each (default: 2)")
    options = parser.parse_args(arguments)
    for model in options.models:
        if model not in MODELS:
            parser.error(f"no model {model}: expected {', '.join(MODELS)}")
    tasks = [
        (model, seed, options.epochs, options.samples) for seed in options.seeds for model in options.models or MODELS
    ]
    with ThreadPoolExecutor(options.jobs) as pool:
        for row in pool.map(lambda task: measured(*task), tasks):
            say(", ".join(f"{name} {value}" for name, value in row.items()))
            update_table(TABLE, [row], ("model", "epochs", "seed", "samples"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
