"""The settings of a run, and the command line that is made from them."""

import argparse
import dataclasses
import json
from dataclasses import dataclass

from npvae.commands import UserError
from npvae.layers import ACTIVATIONS
from npvae.optimizers import OPTIMIZERS


def setting(default, help, kind=str, low=None, high=None, choices=None, above=None):
    """A field of `Config`: default, help text, and what it may be (from `low` or above `above`, up to `high`)."""
    return dataclasses.field(
        default=default,
        metadata={
            "help": help,
            "kind": kind,
            "many": isinstance(default, tuple),
            "low": low,
            "above": above,
            "high": high,
            "choices": choices,
        },
    )


@dataclass(frozen=True)
class Config:
    """What a run is made of; the same settings and data give the same numbers."""

    dataset: str = setting(
        "auto", "auto, mnist, fashion-mnist, kmnist, strokes, frey, or a folder with the four IDX files of MNIST"
    )
    data_dir: str = setting("", "folder that holds a folder per data set (default: $NPVAE_DATA, else data/)")
    hidden: tuple = setting(
        (500,), "units of each hidden layer of the encoder; the decoder's are in reverse", int, 1, 100_000
    )
    latent: int = setting(20, "number of latent variables", int, 1, 100_000)
    activation: str = setting("tanh", "of the hidden layers", choices=tuple(ACTIVATIONS))
    optimizer: str = setting("adam", "with its paper's constants; sgd has momentum 0.9", choices=tuple(OPTIMIZERS))
    learning_rate: float = setting(1e-3, "step size of the optimizer", float, above=0, high=1000)
    batch_size: int = setting(100, "examples per step", int, 1, 1_000_000)
    samples: int = setting(1, "samples of z per example, L of eq. 7", int, 1, 100_000)
    epochs: int = setting(10, "passes over the training set", int, 1, 1_000_000)
    seed: int = setting(0, "of the initial weights, the order of the examples and the noise", int, 0, 2**63 - 1)

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.metadata["many"]:
                valid = isinstance(value, tuple) and len(value) > 0 and all(_allowed(field, item) for item in value)
            else:
                valid = _allowed(field, value)
            if not valid:
                raise UserError(f"{option_name(field.name)} {value}: expected {_expected(field)}")

    @classmethod
    def from_json(cls, text):
        """The settings that `to_json` wrote; those it does not name have their defaults."""
        values = json.loads(text)
        unknown = set(values) - {field.name for field in dataclasses.fields(cls)}
        if unknown:
            raise UserError(f"unknown setting {', '.join(sorted(unknown))}")
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})

    def to_json(self):
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"


def option_name(name):
    """The command-line option of the setting `name`."""
    return "--" + name.replace("_", "-")


def _allowed(field, value):
    limits = field.metadata
    if isinstance(value, bool) or not isinstance(value, (int, float) if limits["kind"] is float else limits["kind"]):
        return False
    return (
        (limits["choices"] is None or value in limits["choices"])
        and (limits["low"] is None or value >= limits["low"])
        and (limits["above"] is None or value > limits["above"])
        and (limits["high"] is None or value <= limits["high"])
    )


def _expected(field):
    limits = field.metadata
    if limits["choices"]:
        return "one of " + ", ".join(limits["choices"])
    noun = {int: "a whole number", float: "a number", str: "text"}[limits["kind"]]
    if limits["above"] is not None:
        return f"{noun} above {limits['above']}, at most {limits['high']:,}"
    if limits["low"] is not None:
        return f"{noun} from {limits['low']:,} to {limits['high']:,}"
    return noun


def add_settings(parser):
    """An option for each setting; an option that is not given leaves no trace in the parsed namespace."""
    for field in dataclasses.fields(Config):
        limits = field.metadata
        default = " ".join(map(str, field.default)) if limits["many"] else field.default
        parser.add_argument(
            option_name(field.name),
            type=_converter(field),
            nargs="+" if limits["many"] else None,
            metavar="{" + ",".join(limits["choices"]) + "}" if limits["choices"] else field.name.upper(),
            default=argparse.SUPPRESS,
            help=limits["help"] + ("" if default == "" else f" (default: {default})"),
        )


def _converter(field):
    def convert(text):
        try:
            value = field.metadata["kind"](text)
        except ValueError:
            value = None
        if value is None or not _allowed(field, value):
            raise argparse.ArgumentTypeError(f"{text}: expected {_expected(field)}")
        return value

    return convert


def given_settings(options):
    """The settings that were given on the command line, a dict of name to value."""
    names = {field.name for field in dataclasses.fields(Config)}
    return {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in vars(options).items()
        if name in names
    }
