"""`python -m npvae`: which commands there are."""

import argparse
import sys

from npvae.commands import OneLineParser, command

COMMANDS = {
    "train": "train a model and evaluate it after every epoch",
    "evaluate": "the bounds of a run on its test set, and log p(x)",
    "plot": "the pictures of a run, or the curves of several",
    "explore": "a run as a page to play with, in a browser",
    "exercises": "write a VAE of your own, and be told what is wrong",
    "gradcheck": "derivatives by hand against numerical ones",
}


@command("python -m npvae")
def main(arguments=None):
    """Print a line per command; returns the exit code."""
    lines = [f"python -m npvae.{name:<12}{what}" for name, what in COMMANDS.items()]
    description = "\n".join(["A variational autoencoder in NumPy; each command knows --help.", "", *lines])
    parser = OneLineParser("python -m npvae", description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args(arguments)
    print(description)
    return 0


if __name__ == "__main__":
    sys.exit(main())
