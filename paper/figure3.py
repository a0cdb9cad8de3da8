"""Figure 3: AEVB, wake-sleep and Monte Carlo EM, log p(x) against training examples: `python paper/figure3.py`."""

import argparse

import numpy as np
from marginal import log_likelihoods
from race import FOLDER, Racer, compete_all, rows_of, update_table

from npvae.data.pixels import batch

TABLE = FOLDER / "figure3.csv"
METHODS = ("aevb", "wake-sleep", "mcem")
RACERS = [Racer("mnist", examples, 100, 3, method) for examples in (1000, 50_000) for method in METHODS]
MARKS = (0.3, 1, 2, 3, 5, 7, 10, 15, 20, 30, 45, 60, 70, 100)  # millions of examples at which log p(x) is measured
MEASURED = 1000  # of the training and of the test set, the first
SEED = 4


def marginals(race, test_images):
    """log p(x) of the first training and test examples, nats per example, and beside it what importance sampling says.

    The same random numbers each time: what differs between two rows of the table is due to the models.
    """
    result = {}
    for split, images in {"train": race.images, "test": test_images}.items():
        estimates = log_likelihoods(race.vae, batch(images[:MEASURED]), np.random.default_rng(SEED))
        result |= {name: value.mean().item() for name, value in zip((split, f"{split}_is"), estimates, strict=True)}
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("racers", nargs="*", help="parts of names, as mnist-1000 or mcem (default: all)")
    parser.add_argument("--examples", type=float, default=6e7, help="to this number of examples (default: 6e7)")
    parser.add_argument("--jobs", type=int, default=2, help="processes, one thread each (default: 2)")
    options = parser.parse_args()
    racers = [racer for racer in RACERS if not options.racers or any(part in racer.name for part in options.racers)]
    marks = [round(mark * 1e6) for mark in MARKS if mark * 1e6 <= options.examples]
    for racer in compete_all(racers, marks, options.jobs, marginals):
        update_table(TABLE, RACERS)
        print(racer.name, *list(rows_of(racer)[-1].values())[-7:], flush=True)


if __name__ == "__main__":
    main()
