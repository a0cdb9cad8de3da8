"""What the commands share: how they begin and end, how they tell mistakes, and how they are stopped."""

import argparse
import functools
import os
import signal
import sys
import threading

import npvae

# those that ask a program to end; Windows has no SIGHUP
STOPS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class UserError(Exception):
    """A mistake of the user's; the message is one line that says what was found, what was expected and what to do."""


class OneLineParser(argparse.ArgumentParser):
    """An argument parser that knows --version, tells a mistake in one line, without the usage, and exits with 2."""

    def __init__(self, program, description, **options):
        super().__init__(prog=program, description=description, allow_abbrev=False, **options)
        self.add_argument("--version", action="version", version=f"npvae {npvae.__version__}")

    def error(self, message):
        complain(self.prog, message)
        self.exit(2)


def positive(text, low=1):
    """A whole number from `low` on, for argparse."""
    if not text.isdecimal() or not low <= int(text) <= 10_000_000:
        raise argparse.ArgumentTypeError(f"{text}: expected a whole number from {low} to 10,000,000")
    return int(text)


def escaped(text):
    """What is printed as one line, whatever is in it, as a name of a folder can be: nothing can steer a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def say(line):
    """Print a line on standard output."""
    print(escaped(line), flush=True)


def complain(program, message):
    """Print a message on standard error in one line."""
    _print_if_possible(f"{program}: {message}", sys.stderr)


def say_last(line):
    """Print the last line on standard output, which may be a terminal that has gone."""
    _print_if_possible(line, sys.stdout)


def _print_if_possible(line, stream):
    try:
        print(escaped(line), file=stream, flush=True)
    except OSError:
        _forget(stream)


def command(program):
    """Decorate `main(arguments)` of a program so that what goes wrong is told in one line, without a traceback.

    Mistakes of the user's, and files, disks or memory that do not play along, exit with 2, a signal with 128 and its
    number: Ctrl-C with 130, SIGTERM with 143, SIGHUP with 129.
    """

    def decorate(main):
        @functools.wraps(main)
        def wrapped(arguments=None):
            _provide_streams()
            handlers = dict.fromkeys(STOPS, exit_on_signal) | {signal.SIGINT: signal.default_int_handler}
            before = handle_signals(handlers)
            try:
                code = main(arguments)
                sys.stdout.flush()  # here, where a full disk is told as any other
                return code
            except BrokenPipeError:  # whoever read the output has gone, as in `… | head`
                _forget(sys.stdout)
                return 128 + getattr(signal, "SIGPIPE", 13)
            except (UserError, OSError, MemoryError) as error:
                if isinstance(error, OSError) and not _can_be_flushed(sys.stdout):
                    _forget(sys.stdout)
                complain(program, str(error) or type(error).__name__)
                return 2
            except KeyboardInterrupt:
                complain(program, "interrupted")
                return 128 + signal.SIGINT
            finally:
                handle_signals(before)

        return wrapped

    return decorate


def _provide_streams():
    """Have standard output and error, where a file that is opened would else take their place, and any character."""
    for number, name in ((0, None), (1, "stdout"), (2, "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
        if name and getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # those of a notebook cannot be, and need not
            stream.reconfigure(errors="replace")  # a terminal without Σ or − shows ? instead of failing


def _can_be_flushed(stream):
    try:
        stream.flush()
    except OSError:
        return False
    return True


def _forget(stream):
    """Let a stream that nothing can be written to end without a word."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def handle_signals(handlers):
    """Set a handler for each signal; returns those that were set before, to be set again afterwards.

    A signal that is ignored, as by nohup, stays ignored. Only the main thread gets signals, and can say what becomes of
    them: in any other, this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        return {}
    heeded = {number: to for number, to in handlers.items() if signal.getsignal(number) != signal.SIG_IGN}
    return {number: signal.signal(number, handler) for number, handler in heeded.items()}


def exit_on_signal(number, frame):
    """The handler of a signal that ends a program by an exception, so that it tidies up."""
    sys.exit(128 + number)


class StopRequest:
    """While entered, Ctrl-C, SIGTERM and SIGHUP are noted in `signal`, not acted upon; a second one acts at once."""

    def __enter__(self):
        self.signal = None
        self.before = handle_signals(dict.fromkeys(STOPS, self.note))
        return self

    def note(self, number, frame):
        self.signal = number
        handle_signals(self.before)

    def __exit__(self, *exception):
        handle_signals(self.before)
