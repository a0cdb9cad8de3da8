"""`python -m npvae.exercises`: build a VAE of your own, file by file, and be told what is wrong with it."""

import argparse
import math
import re
import shlex
import sys
import textwrap
import time
from pathlib import Path, PureWindowsPath

from npvae.commands import OneLineParser, UserError, command, escaped
from npvae.exercises import report
from npvae.exercises.course import MODULES, exercise
from npvae.exercises.folder import TIME_LIMIT, check, is_folder, next_hint, start
from npvae.exercises.report import say
from npvae.files import replacing

PROGRAM = "python -m npvae.exercises"
ALL = range(1, len(MODULES) + 1)
POLL = 0.3  # seconds between two looks at the files
NUMBER = re.compile(r"(?:ex)?0?(\d{1,2})(?:_\w+)?(?:\.py)?", re.IGNORECASE)
ABOUT = """\
Thirteen small files which together are a VAE: write their functions, and be
told what is wrong, and which mistake it is.

  start FOLDER        write the files; what is there is never overwritten
  check FOLDER [N…]   the verdict on every function, or on exercises N
  watch FOLDER        check again whenever a file is saved
  hint N [FOLDER]     one hint at a time, from a nudge to the formula
  solution N          how npvae writes it, after asking whether you are sure

Where [FOLDER] or FOLDER of check and watch is left out, it is the current one.
When all pass, `python FOLDER/train.py` trains your own code on MNIST."""


def parser():
    """The command line: five commands that take exercises and a folder in any order."""
    main = OneLineParser(PROGRAM, ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = main.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Subparser)

    def add(name, what, arguments="[FOLDER] [N…]"):
        added = commands.add_parser(name, description=what)
        added.add_argument(
            "arguments", nargs="*", metavar=arguments, help="a folder, and numbers or names of exercises"
        )
        return added

    start = add("start", "write the exercises", "FOLDER")
    start.add_argument(
        "--seed", type=_seed, default=0, help="which bugs are planted in exercises 12 and 13 (default 0)"
    )
    for added in (
        add("check", "the verdict on every function; exit code 0 only if all pass, else 1"),
        add("watch", "check again whenever a file is saved"),
    ):
        added.add_argument(
            "--time-limit",
            type=_seconds,
            default=TIME_LIMIT,
            metavar="S",
            help=f"seconds that a function may take (default {TIME_LIMIT:g})",
        )
        if added.prog.endswith("check"):
            added.add_argument("--json", action="store_true", help="print all verdicts as JSON")
            added.add_argument("--junit", type=_xml, metavar="FILE.xml", help="write all verdicts as JUnit XML as well")
    add("hint", "the next hint on the first function of exercise N that is not right", "N [FOLDER]")
    solution = add("solution", "how npvae writes exercise N", "N")
    solution.add_argument("--yes", action="store_true", help="do not ask")
    return main


class _Subparser(OneLineParser):
    def __init__(self, prog, description, **options):
        super().__init__(prog, description, **options)


@command("python -m npvae.exercises")
def main(arguments=None):
    """Run one of the commands; returns the exit code."""
    given = parser().parse_args(arguments)
    if given.command is None:
        print(ABOUT)
        return 0
    return globals()[f"run_{given.command}"](given)


def run_start(given):
    if len(given.arguments) != 1:
        raise UserError(f"start takes one folder; for example `{PROGRAM} start my-vae`")
    folder = Path(given.arguments[0])
    written, kept = start(folder, given.seed)
    if kept:
        print(f"Files that were there, and stay as they are: {len(kept)}")
    print(f"Files written to {escaped(folder)}: {len(written)}")
    if not kept:
        print(f"Open {escaped(written[0])}, write its functions, and see what is wrong:")
        print(f"  {PROGRAM} watch {quoted(folder)}")
        print("Leave exercises 12 and 13 closed until then: they hold what the others ask for.")
    return 0


def run_check(given):
    folder, numbers = split(given.arguments)
    folder = existing(folder)
    results = []
    for result in check(folder, numbers or ALL, given.time_limit):
        results.append(result)
        if not given.json:
            say(report.as_text(result))
    if given.json:
        print(report.as_json(results, folder))
    else:
        say(f"\n{report.progress(results)}")
    if given.junit:
        with replacing(given.junit) as file:
            file.write(report.as_junit(results))
    passed = all(result.passed for result in results)
    if passed and not numbers and not given.json:
        say(finished(folder))
    return 0 if passed else 1


def run_watch(given):
    folder, numbers = split(given.arguments)
    folder = existing(folder)
    numbers = numbers or ALL
    results, seen = {}, {}
    print(f"Checking {escaped(folder)} …", flush=True)
    while True:
        now = {number: _state(folder / exercise(number).file) for number in numbers}
        changed = [number for number in numbers if now[number] != seen.get(number, "never seen")]
        if changed:
            seen = now
            for result in check(folder, changed, given.time_limit):
                results[result.exercise.number] = result
            show(results, changed if len(changed) < len(numbers) else [], folder)
            if all(result.passed for result in results.values()):
                say(finished(folder))
                return 0
            print(f"{time.strftime('%H:%M:%S')}, waiting for a file to be saved; Ctrl-C ends", flush=True)
        time.sleep(POLL)


def show(results, changed, folder):
    """What has changed, and the first exercise that does not pass yet."""
    if sys.stdout and sys.stdout.isatty():
        print("\033[2J\033[H", end="")
    current = next((number for number, result in results.items() if not result.passed), None)
    for number in changed:
        if number != current:
            say(report.as_text(results[number]))
    if current:
        result = results[current]
        say(report.as_text(result))
        if result.untouched:
            say(textwrap.indent(result.exercise.next_step, "     "))
        print(f"     a hint: {PROGRAM} hint {current} {quoted(folder)}")
    say(f"\n{report.progress(list(results.values()))}")


def run_hint(given):
    folder, numbers = split(given.arguments)
    number = one(numbers, "hint")
    folder = existing(folder) if folder else Path()
    if not is_folder(folder):
        name, hints = exercise(number).hints([])
        say(hint(name, hints, 0))
        print(f"The next one: `{PROGRAM} hint {number} FOLDER`, with the folder of your exercises.")
        return 0
    (result,) = check(folder, [number])
    if result.passed:
        print(f"Exercise {number} is right: nothing to hint at.")
    elif result.problem:
        say(report.paragraph(result.problem))
    else:
        name, hints = exercise(number).hints(result.functions, result.text)
        which = next_hint(folder, number, name, len(hints))
        say(hint(name, hints, which))
        if which == len(hints) - 1:
            print(f"That was the last; `{PROGRAM} solution {number}` shows all of it.")
    return 0


def hint(name, hints, which):
    return textwrap.fill(
        f"{name}, hint {which + 1} of {len(hints)}: {hints[which]}", report.WIDTH, break_on_hyphens=False
    )


def run_solution(given):
    _, numbers = split(given.arguments)
    number = one(numbers, "solution")
    if not given.yes:
        try:
            answer = input(f"Exercise {number} as npvae writes it: are you sure that you want to see it? [y/N] ")
        except (EOFError, RuntimeError):  # no input, or none any more
            answer = ""
        if answer.strip().lower() not in ("y", "yes"):
            print("Not shown.")
            return 1
    say(exercise(number).solution.rstrip())
    return 0


def finished(folder):
    return f"All pass: it is a VAE, and it is yours. Train it:\n  python {quoted(folder / 'train.py')}"


def split(arguments):
    """(folder or None, numbers): what is an exercise, and what is a folder. An exercise is 5, ex05, or ex05_kl.py."""
    folders, numbers = [], []
    for argument in arguments:
        last = PureWindowsPath(argument).name  # which knows both kinds of slash
        matched = NUMBER.fullmatch(last) if argument.isascii() else None
        called_so = Path(argument).is_dir() and not folders and not is_folder(Path())  # a folder with the name 5
        if matched and not called_so and (last == argument or last.lower().endswith(".py")):
            number = int(matched[1])
            if not 1 <= number <= len(MODULES):
                raise UserError(f"{argument}: there are exercises 1 to {len(MODULES)}")
            numbers.append(number)
            if last != argument:
                folders.append(_path(argument[: -len(last)]))
        else:
            folders.append(_path(argument))
    if len(set(folders)) > 1:
        raise UserError(f"expected one folder, found {' and '.join(map(str, dict.fromkeys(folders)))}")
    return (folders[0] if folders else None), sorted(set(numbers))


def one(numbers, name):
    if len(numbers) != 1:
        raise UserError(f"{name} takes the number of one exercise, 1 to {len(MODULES)}")
    return numbers[0]


def existing(folder):
    folder = folder or Path()
    if not folder.is_dir():
        raise UserError(
            f"{folder} is neither a folder nor an exercise; `{PROGRAM} start {quoted(folder)}` makes a folder"
        )
    if not is_folder(folder):
        raise UserError(f"there are no exercises in {folder.resolve()}; `{PROGRAM} start FOLDER` writes them")
    return folder


def quoted(path):
    """A path as one writes it in a shell."""
    return escaped(shlex.quote(str(path)))


def _path(text):
    """A path, also one that was written for Windows."""
    return Path(text) if Path(text).exists() else Path(text.replace("\\", "/"))


def _state(path):
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size


def _seed(text):
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text}: expected a whole number from 0 on")
    return int(text)


def _xml(text):
    if not text.endswith(".xml") or Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"{text}: expected the name of a file that ends in .xml")
    return Path(text)


def _seconds(text):
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0.1 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{text}: expected seconds, from 0.1 to 3600")
    return seconds


if __name__ == "__main__":
    sys.exit(main())
