"""What the commands share: how they tell mistakes, and how they are stopped."""

import argparse
import functools
import os
import signal
import sys
import threading

import npvae


class UserError(Exception):
    """A mistake of the user's; the message is one line that says what was found, what was expected and what to do."""


class OneLineParser(argparse.ArgumentParser):
    """An argument parser that knows --version, tells a mistake in one line, without the usage, and exits with 2."""

    def __init__(self, program, description, **options):
        super().__init__(prog=program, description=description, allow_abbrev=False, **options)
        self.add_argument("--version", action="version", version=f"npvae {npvae.__version__}")

    def error(self, message):
        self.exit(2, f"{self.prog}: {message}\n")


def positive(text, low=1):
    """A whole number from `low` on, for argparse."""
    if not text.isdecimal() or not low <= int(text) <= 10_000_000:
        raise argparse.ArgumentTypeError(f"{text}: expected a whole number from {low} to 10,000,000")
    return int(text)


def command(program):
    """Decorate `main(arguments)` of a program so that what goes wrong is told in one line, without a traceback.

    Mistakes of the user's, and files, disks or memory that do not play along, exit with 2, Ctrl-C with 130 and SIGTERM
    with 143.
    """

    def decorate(main):
        @functools.wraps(main)
        def wrapped(arguments=None):
            for stream in (sys.stdout, sys.stderr):
                if hasattr(stream, "reconfigure"):  # those of a notebook cannot be, and need not
                    stream.reconfigure(errors="replace")  # a terminal without Σ or − shows ? instead of failing
            before = handle_signals({signal.SIGTERM: _exit})  # by an exception, so that temporary files are removed
            try:
                return main(arguments)
            except BrokenPipeError:  # whoever read the output has gone, as in `… | head`
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                return 128 + signal.SIGPIPE
            except (UserError, OSError, MemoryError) as error:
                print(f"{program}: {error}", file=sys.stderr)
                return 2
            except KeyboardInterrupt:
                print(f"{program}: interrupted", file=sys.stderr)
                return 128 + signal.SIGINT
            finally:
                handle_signals(before)

        return wrapped

    return decorate


def handle_signals(handlers):
    """Set a handler for each signal; returns those that were set before, to be set again afterwards.

    Only the main thread gets signals, and can say what becomes of them: in any other, this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {number: signal.signal(number, handler) for number, handler in handlers.items()}


def _exit(number, frame):
    sys.exit(128 + number)
