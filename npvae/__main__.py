"""`npvae`, or `python -m npvae`: which commands there are, and each by its name."""

import argparse
import importlib
import sys

from npvae.commands import OneLineParser, command

COMMANDS = {
    "train": "train a model and evaluate it after every epoch",
    "sweep": "settings × seeds, a run each, and a table of them",
    "evaluate": "the bounds of a run on its test set, and log p(x)",
    "plot": "the pictures of a run, or the curves of several",
    "explore": "a run as a page to play with, in a browser",
    "exercises": "write a VAE of your own, and be told what is wrong",
    "gradcheck": "derivatives by hand against numerical ones",
}


@command("python -m npvae")
def main(arguments=None):
    """Print a line per command, or run the one that is named; returns the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments and arguments[0] in COMMANDS:
        name = arguments[0].replace("exercises", "exercises.__main__")
        return importlib.import_module(f"npvae.{name}").main(arguments[1:])  # imports nothing for the others
    lines = [f"python -m npvae.{name:<12}{what}" for name, what in COMMANDS.items()]
    about = [
        "A variational autoencoder in NumPy; each command knows --help.",
        "`npvae train` is short for the first, and so on.",
    ]
    description = "\n".join([*about, "", *lines])
    parser = OneLineParser("python -m npvae", description, formatter_class=argparse.RawDescriptionHelpFormatter)
    if arguments and not arguments[0].startswith("-"):
        parser.error(f"no command {arguments[0]}; expected one of {', '.join(COMMANDS)}")
    parser.parse_args(arguments)
    print(description)
    return 0


if __name__ == "__main__":
    sys.exit(main())
