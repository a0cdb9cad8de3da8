"""The tables: what was measured, and what was published."""

import csv
import functools
import io
from pathlib import Path

import numpy as np

from npvae.commands import UserError
from npvae.files import read_text, replacing

FOLDER = Path(__file__).parent
RUNS = FOLDER / "runs"  # checkpoints, which git ignores
NAMES = {"aevb": "AEVB", "wake-sleep": "wake-sleep", "mcem": "Monte Carlo EM"}  # of the methods


def read_table(path):
    """The rows of a table, a list of dicts whose values are numbers where they can be; a UserError where it is none."""
    try:
        header, *rows = csv.reader(io.StringIO(read_text(path), newline=""))
        for i, row in enumerate(rows, 2):
            if len(row) != len(header):
                raise ValueError(f"line {i} has {len(row)} values, expected {len(header)}")
    except (ValueError, csv.Error) as error:
        raise UserError(f"{path} is broken: {error}") from error
    return [dict(zip(header, map(number_or_text, row), strict=True)) for row in rows]


def number_or_text(value):
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            pass
    return value


def update_table(path, rows, key):
    """Put rows, a list of dicts, into a table in place of those that agree with one of them in the columns `key`.

    Returns all of its rows, sorted; a table with other columns, or with text for numbers of the key, is a UserError.
    """

    def identity(row):
        return tuple(row[name] for name in key)

    old = read_table(path) if path.exists() else []
    try:
        table = sorted({identity(row): row for row in old + rows}.values(), key=identity)
        if any(row.keys() != table[0].keys() for row in table):
            raise ValueError("rows of different columns")
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is broken, or of another version: {error!r}") from error
    if table:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, table[0])
        writer.writeheader()
        writer.writerows(table)
        with replacing(path) as file:
            file.write(text.getvalue().encode())
    return table


def of(rows, **settings):
    """The rows that have these settings."""
    return [row for row in rows if settings.items() <= row.items()]


@functools.cache
def published_table():
    return read_table(FOLDER / "published.csv")


def published(figure, dataset, parameter, method, split):
    """(examples, nats) of a curve of the paper, read off its vector graphics to about 0.1 nats."""
    keys = {"figure": figure, "dataset": dataset, "latent_or_ntrain": parameter, "method": method, "split": split}
    rows = of(published_table(), **keys)
    return [row["train_samples_evaluated"] for row in rows], [row["nats"] for row in rows]


def published_at(examples, *curve):
    """The nats of a published curve at a number of examples, between two of its points; NaN outside of them."""
    return np.interp(examples, *published(*curve), left=np.nan, right=np.nan)


def nats(value, sign=""):
    """A number for a table; a dash where there is none."""
    return "–" if np.isnan(value) else f"{value:{sign}.1f}"
