"""The command line that is made from the settings of a run."""

import argparse
import dataclasses

from npvae.config import Config, allowed, expected, option_name


def add_settings(parser, but=()):
    """An option for each setting `but` those; an option that is not given leaves no trace in the parsed namespace."""
    for field in dataclasses.fields(Config):
        if field.name in but:
            continue
        limits = field.metadata
        if limits["kind"] is bool:
            parser.add_argument(
                option_name(field.name), action="store_true", default=argparse.SUPPRESS, help=limits["help"]
            )
            continue
        default = " ".join(map(str, field.default)) if limits["many"] else field.default
        parser.add_argument(
            option_name(field.name),
            type=converter(field),
            nargs="+" if limits["many"] else None,
            metavar="{" + ",".join(limits["choices"]) + "}" if limits["choices"] else field.name.upper(),
            default=argparse.SUPPRESS,
            help=limits["help"] + ("" if default == "" else f" (default: {default})"),
        )


def converter(field):
    """What argparse makes a value of this setting with."""

    def convert(text):
        try:
            value = field.metadata["kind"](text)
        except ValueError:
            value = None
        if value is None or not allowed(field, value):
            raise argparse.ArgumentTypeError(f"{text}: expected {expected(field)}")
        return value

    return convert


def given_settings(options):
    """The settings that were given on the command line, a dict of name to value."""
    names = {field.name for field in dataclasses.fields(Config)}
    return {name: value for name, value in vars(options).items() if name in names}
