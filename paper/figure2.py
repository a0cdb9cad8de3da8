"""Figure 2: AEVB against wake-sleep, the bound against the number of training examples: `python paper/figure2.py`."""

import argparse

import numpy as np
from race import FOLDER, Racer, compete_all, rows_of, update_table

TABLE = FOLDER / "figure2.csv"
LATENTS = {"mnist": (20, 10, 3, 5, 200), "frey": (20, 10, 2, 5)}
SETUPS = {"mnist": (50_000, 500), "frey": (1600, 200)}  # training examples, hidden units
CONTESTANTS = (("aevb", "adagrad"), ("wake-sleep", "adagrad"), ("aevb", "adam"))
RACERS = [
    Racer(dataset, *SETUPS[dataset], latent, method, optimizer)
    for dataset, latents in LATENTS.items()
    for latent in latents
    for method, optimizer in CONTESTANTS
]


def marks(examples):
    """Numbers of examples at which the bound is measured, up to so many: eight in each decade, from 100,000."""
    steps = 10 ** (5 + np.arange(0, 8 * 4) / 8)
    return [int(round(mark, -4)) for mark in steps if mark <= examples * 1.001]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("racers", nargs="*", help="parts of names, as mnist-50000-500-20 or wake-sleep (default: all)")
    parser.add_argument("--examples", type=float, default=1e7, help="to this number of examples (default: 1e7)")
    parser.add_argument("--jobs", type=int, default=2, help="processes, one thread each (default: 2)")
    options = parser.parse_args()
    racers = [racer for racer in RACERS if not options.racers or any(part in racer.name for part in options.racers)]
    for racer in compete_all(racers, marks(options.examples), options.jobs):
        update_table(TABLE, RACERS)
        print(racer.name, *list(rows_of(racer)[-1].values())[-5:], flush=True)


if __name__ == "__main__":
    main()
