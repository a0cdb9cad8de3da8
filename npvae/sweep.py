"""Train a grid of settings, each with several seeds, and put what came of it into one table: `python -m npvae.sweep`.

The folder of a sweep holds sweep.json, which says what is to be done; the folder of a run for each setting and seed;
and in the end table.txt, table.csv and table.png. Each run is trained in a process of its own, and fails alone. What is
done is what lies in the run folders: a sweep that was stopped, or killed, goes on from there.
"""

import argparse
import contextlib
import dataclasses
import errno
import itertools
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from npvae.commands import OneLineParser, StopRequest, UserError, command, complain, positive, say, say_last
from npvae.config import EXTENDABLE, Config, as_text, option_name, spelled
from npvae.files import Locked, lock, read_text, replacing
from npvae.options import add_settings, converter, given_settings
from npvae.parallel import LOOK, hides_bars, own_environment, this_team, together
from npvae.runs import Run, finite_number, is_free, make_folder, taken
from npvae.train import find_data, folder_name, free_name, in_words, threads_advice

PROGRAM = "python -m npvae.sweep"
FIELDS = {field.name: field for field in dataclasses.fields(Config)}
IDENTITY = [name for name in FIELDS if name not in EXTENDABLE or name == "epochs"]  # what makes it the planned run
UNSAFE = re.compile(r"[^A-Za-z0-9.+-]+")  # in the name of a folder
LONGEST = 200  # characters of such a name
SEEDS = (0, 1, 2)
LAST_PICTURE = "samples.png"  # that a training draws when it has ended


@dataclass(frozen=True)
class Plan:
    """What a sweep is made of: the varied settings, name → list of values, and those that all runs have, name → value.

    `importance_samples` is how many each run is evaluated with, None for no evaluation.
    """

    vary: dict
    seeds: list
    settings: dict
    importance_samples: int | None = None

    def points(self):
        """The grid: for each point of it a dict of name to value, in the order of the table."""
        return [dict(zip(self.vary, values, strict=True)) for values in itertools.product(*self.vary.values())]

    def config(self, point, seed):
        return Config(**self.settings, **point, seed=seed)

    def runs(self, folder):
        """The runs, each to be a folder in this one: for each point a list of `Task`, one for each seed."""
        points = self.points()
        words = [[f"{spelled(name)} {as_text(value)}" for name, value in point.items()] for point in points]
        names = [UNSAFE.sub("-", "-".join(each))[:LONGEST] for each in words]
        if len(set(names)) < len(names):
            names = [f"{i}-{name}" for i, name in enumerate(names, 1)]

        def task(point, words, name, seed):
            place = Path(folder, "-".join(filter(None, [name, f"seed-{seed}"])))
            return Task(", ".join([*words, f"seed {seed}"]), place, self.config(point, seed), self.importance_samples)

        return [[task(*row, seed) for seed in self.seeds] for row in zip(points, words, names, strict=True)]

    def to_json(self):
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text):
        """The plan that `to_json` wrote; anything else is an error of some kind, here or in `checked`."""
        plan = cls(**json.loads(text))
        vary = {name: [tuple(v) if isinstance(v, list) else v for v in values] for name, values in plan.vary.items()}
        samples = plan.importance_samples
        return cls(vary, list(plan.seeds), dict(plan.settings), samples if samples is None else positive(str(samples)))


class Task(NamedTuple):
    """A run of a sweep, and what it is called."""

    label: str
    folder: Path
    config: Config
    importance_samples: int | None


# what is to be done


def given_plan(options):
    """The plan that the command line tells."""
    vary, settings = {}, given_settings(options)
    for given, *texts in options.vary:
        name = given.replace("-", "_")
        if name == "seed":
            raise UserError("--vary seed: the seeds are told by --seeds")
        if name == "data_dir":
            raise UserError("--vary data-dir: the data of all runs are in one folder, told by --data-dir")
        if name not in FIELDS:
            raise UserError(f"--vary {given}: no setting of npvae.train is called {spelled(name)}")
        if name in vary:
            raise UserError(f"--vary {given} is given twice: name all of its values at once")
        if name in settings:
            raise UserError(f"--vary {given} and {option_name(name)} are both given: leave out one of them")
        if not texts:
            raise UserError(f"--vary {given}: expected a value, or several")
        try:
            vary[name] = [value_of(FIELDS[name], text) for text in texts]
        except argparse.ArgumentTypeError as error:
            raise UserError(f"--vary {given} {error}") from error
    return Plan(vary, options.seeds or list(SEEDS), settings, options.importance_samples)


def value_of(field, text):
    """The value of a setting that a word tells; where it has many, they are in that one word."""
    if field.metadata["kind"] is bool:
        if text not in ("yes", "no"):
            raise argparse.ArgumentTypeError(f"{text}: expected yes or no")
        return text == "yes"
    convert = converter(field)
    return tuple(map(convert, text.split())) if field.metadata["many"] else convert(text)


def checked(plan):
    """Look at every combination, and at the data, before a run begins: (the plan, its data sets in words).

    The plan then names the data so that they are found again from any folder. What cannot be trained is a UserError.
    """
    require_distinct(plan)
    found, names = {}, {}
    for point, seed in itertools.product(plan.points(), plan.seeds):
        config = plan.config(point, seed)
        about = (config.dataset, config.binarize, config.conditional)
        if about not in found:
            resolved, dataset = find_data(config)
            found[about] = str(dataset)
            names[config.dataset] = resolved.dataset
    if not found:
        raise UserError("no values, or no seeds: there is nothing to be done")
    vary, settings = dict(plan.vary), plan.settings | {"data_dir": resolved.data_dir}
    if "dataset" in vary:
        vary["dataset"] = [names[name] for name in vary["dataset"]]
    else:
        (settings["dataset"],) = names.values()
    plan = dataclasses.replace(plan, vary=vary, settings=settings)
    require_distinct(plan)
    return plan, list(dict.fromkeys(found.values()))


def require_distinct(plan):
    lists = {f"vary {spelled(name)}": values for name, values in plan.vary.items()} | {"seeds": plan.seeds}
    for name, values in lists.items():
        for i, value in enumerate(values):
            if value in values[:i]:
                raise UserError(f"--{name}: {as_text(value)} is given twice")


def start(options, stack):
    """Make the folder of a new sweep, locked until `stack` is left: (folder, plan, its data sets in words)."""
    out = options.out
    if out is not None and os.path.lexists(out) and not (os.path.isdir(out) and is_free(Path(out))):
        raise UserError(taken(out))
    plan, about = checked(given_plan(options))
    folder = Path(free_name(f"sweep-{datetime.now():%Y%m%d-%H%M%S}") if out is None else out)
    make_folder(folder)
    lockable = Run(folder, None)
    stack.enter_context(lockable.lock())
    if not is_free(folder, but=".lock"):
        raise UserError(taken(folder))
    with lockable.removed_on_failure():
        save_plan(folder, plan)
    return folder, plan, about


def resume(options, stack):
    """Go on with a sweep, locked until `stack` is left: (folder, plan, its data sets in words)."""
    others = {"vary": options.vary, "seeds": options.seeds, "out": options.out}
    for name in (*(name for name, value in others.items() if value), *given_settings(options)):
        raise UserError(f"{option_name(name)} cannot be given with --resume: a sweep goes on as it was begun")
    folder = Path(options.resume)
    read_plan(folder)  # first, for where there is no sweep there is nothing to be locked
    stack.enter_context(Run(folder, None).lock())
    plan = read_plan(folder)
    if options.importance_samples:
        plan = dataclasses.replace(plan, importance_samples=options.importance_samples)
    plan, about = checked(plan)
    save_plan(folder, plan)
    return folder, plan, about


def save_plan(folder, plan):
    with replacing(folder / "sweep.json") as file:
        file.write(plan.to_json().encode())


def read_plan(folder):
    """The plan of a sweep; a UserError where its folder has none."""
    path = folder / "sweep.json"
    try:
        plan = Plan.from_json(read_text(path))
        plan.runs(folder)
        require_distinct(plan)
        return plan
    except FileNotFoundError as error:
        raise UserError(f"{folder} is not a sweep: it has no sweep.json") from error
    except (UserError, argparse.ArgumentTypeError, OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is not the plan of a sweep: {error}") from error
    except (KeyError, RecursionError) as error:
        raise UserError(f"{path} is not the plan of a sweep: {error!r}") from error


# doing it


def carry_out(label, folder, config, importance_samples, told):
    """Train a run, or the rest of it, and evaluate it: (what went wrong, or "", the signal that stopped it, or 0).

    `told` returns the signal by which the sweep is told to stop, or 0.
    """
    try:
        if told():
            return "", told()
        run = begun(folder, config)
        wait_until_free(run, told)
        words = [["npvae.train", "--resume", folder]] * (not is_trained(run))
        words += [["npvae.evaluate", folder, "--importance-samples", importance_samples]] * bool(importance_samples)
        for each in words:
            if told():
                return "", told()
            code, said, passed_on = call(each, told)
            if passed_on and code in (128 + passed_on, -passed_on):
                return "", passed_on
            if code:
                return why(code, said), 0
        return "", 0
    except (UserError, OSError) as error:
        return str(error), 0


def begun(folder, config):
    """The run in a folder, which is made where there is none."""
    if not os.path.lexists(folder) or (folder.is_dir() and is_free(folder)):
        return Run.create(folder, config)
    return opened(folder, config)


def opened(folder, config):
    """The run in a folder; a UserError where it is not the one of these settings."""
    run = Run.open(folder)
    for name in IDENTITY:
        value, expected = (getattr(each, name) for each in (run.config, config))
        if value != expected:
            found = f"{folder} is a run with {option_name(name)} {as_text(value)}"
            raise UserError(f"{found}, expected {as_text(expected)}: was it changed?")
    return run


def wait_until_free(run, told):
    """Wait while another process trains a run, as one whose sweep was killed does until the end of its epoch."""
    while not told():
        with contextlib.suppress(Locked), lock(run.folder / ".lock"):
            return
        time.sleep(LOOK)


def call(words, told):
    """Run a command in a process of its own: (its exit code, what it said on stderr, the signal that was passed on).

    A session of its own keeps it from the signals of the terminal and of mpiexec, so that it gets each once. Its output
    is a pipe: one whose sweep was killed cannot write, and ends with its epoch.
    """
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    arguments, passed_on = [sys.executable, "-m", *map(str, words)], 0
    process = subprocess.Popen(
        arguments, **pipes, text=True, errors="replace", env=own_environment(), start_new_session=True
    )
    try:
        while True:
            try:
                _, said = process.communicate(timeout=LOOK)
                return process.returncode, said, passed_on
            except subprocess.TimeoutExpired:
                if told() and not passed_on:
                    passed_on = told()
                    with contextlib.suppress(ValueError):  # Windows, where it has come from the console
                        process.send_signal(passed_on)
    finally:
        if process.returncode is None:  # stopped a second time
            process.kill()
            process.wait()


def why(code, said):
    """Why a process has failed, in words: the last line that it said, without the name of its program."""
    if code < 0:
        return f"killed by {signal_name(-code)}"
    lines = said.strip().splitlines()
    if lines:
        return re.sub(r"^python -m npvae\.\w+: ", "", lines[-1])
    return f"stopped by {signal_name(code - 128)}" if code > 128 else f"exit code {code}"


def signal_name(number):
    return next((each.name for each in signal.Signals if each == number), f"signal {number}")


def is_trained(run):
    """Whether a run has finished all of its epochs, and all that follows upon the last."""
    files = [run.checkpoint, run.images / LAST_PICTURE, *[run.film] * run.config.film]
    if not all(path.exists() for path in files):
        return False
    return len(run.metrics()) == run.config.epochs == int(run.load_checkpoint()["epoch"])


def result(task):
    """What came of a run, a dict of name to number; None where something of it is not done, or not as planned."""

    def pick(evaluation):
        if (evaluation["epochs"], evaluation["importance_samples"]) != (task.config.epochs, task.importance_samples):
            return None
        return {
            "iwae_loss": finite_number(evaluation["iwae_loss"][str(task.importance_samples)]["mean"]),
            "active_units": finite_number(evaluation["active_units"]),
        }

    try:
        run = opened(task.folder, task.config)
        if not is_trained(run):
            return None
        last = run.metrics()[-1]
        evaluation = run.evaluated(pick) if task.importance_samples else {}
    except (UserError, OSError):
        return None
    found = {name: last[name] for name in ("test_loss", "test_reconstruction", "test_kl")}
    return None if evaluation is None else found | {"minutes": last["seconds"] / 60} | evaluation


# the command


@together
@command(PROGRAM)
def main(arguments=None):
    """Train all runs of a sweep that are not finished, and make its table; returns the exit code."""
    parser = OneLineParser(
        PROGRAM,
        "Train a grid of settings, each with several seeds, and put what came of it into a table and a picture."
        " Each run is one of npvae.train; what is not varied is the same in all. Under mpiexec -n N, with mpi4py, the"
        " first process hands out the runs, and N - 1 train, each one at a time: on two cores, mpiexec -n 3.",
    )
    parser.add_argument(
        "--vary",
        metavar=("NAME", "VALUE"),
        nargs="+",
        action="append",
        default=[],
        help="a setting and its values, as --vary latent 2 10 20; one of several numbers is a word, as --vary hidden"
        ' 500 "200 200", one that is on or off has yes and no; of several --vary each combination is trained',
    )
    parser.add_argument(
        "--seeds", type=converter(FIELDS["seed"]), nargs="+", help="that each setting is trained with (default: 0 1 2)"
    )
    parser.add_argument(
        "--importance-samples", type=positive, metavar="K", help="also evaluate each run, as npvae.evaluate does"
    )
    parser.add_argument(
        "--out", metavar="SWEEP", type=folder_name, help="folder of the new sweep (default: runs/sweep-DATE-TIME)"
    )
    parser.add_argument(
        "--resume",
        metavar="SWEEP",
        help="go on with this sweep: finish the runs that were stopped or not begun, and try again those that failed",
    )
    parser.add_argument("--seed", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    add_settings(parser, but=("seed",))

    def begin():  # in the first process
        options = parser.parse_args(arguments)
        if "seed" in options:
            raise UserError("--seed: a sweep has several, told by --seeds")
        return (start if options.resume is None else resume)(options, stack)

    with contextlib.ExitStack() as stack:
        return work(begin)


def work(begin):
    """Do what `begin` returns: folder, plan and its data sets in words; say how it ended, and return the exit code."""
    busy = threads_advice()  # before the load is our own
    team = this_team()
    folder, plan, about = team.broadcast(begin)
    runs = plan.runs(os.path.abspath(folder))  # for processes that may have been started in other folders
    tasks = list(itertools.chain(*runs))
    todo = [task for task in tasks if result(task) is None] if team.leads else []
    done = len(tasks) - len(todo)
    for line in about:
        say(line)
    say(f"sweep: {folder}; {len(runs)} × {len(plan.seeds)} runs" + f", {done} finished already" * bool(done))
    if busy:
        say(busy)
    if team.size > 1:
        say(f"{team.size} processes: the first hands out the runs, the others train")
    go_on = f"{PROGRAM} --resume {shlex.quote(str(folder))}"
    bar = tqdm(
        total=len(tasks),
        initial=done,
        smoothing=0,  # the time left is by the mean speed
        bar_format="{n_fmt} of {total_fmt} runs |{bar}| {remaining} left",
        disable=hides_bars(),
        leave=False,
    )
    try:
        with StopRequest() as stop, bar:
            for task, (failure, stopped) in team.hand_out(carry_out, todo, stop):
                stop.signal = stop.signal or stopped
                if not stopped:
                    bar.update()
                    with bar.external_write_mode():
                        tell(task, failure)
    except (KeyboardInterrupt, SystemExit) as error:
        complain(PROGRAM, f"stopped a second time, at once; what was saved before is kept; go on with: {go_on}")
        return getattr(error, "code", 128 + signal.SIGINT)
    except OSError as error:
        if not (stop.signal and error.errno == errno.EIO and team.size == 1):  # of the terminal, which has gone
            raise
    if not team.leads:
        team.leave()
        return 0
    results = [[result(task) for task in row] for row in runs]
    finished = sum(found is not None for row in results for found in row)
    if stop.signal and finished < len(tasks):
        name = signal.Signals(stop.signal).name
        say_last(f"stopped by {name}; {finished} of {len(tasks)} runs are finished; go on with: {go_on}")
        team.leave()
        return 128 + stop.signal
    return finish(folder, plan, results, go_on, team)


def tell(task, failure):
    """Say in a line what came of a run."""
    found = None if failure else result(task)
    if found is None:
        complain(PROGRAM, f"{task.label}: failed: {failure or 'it has not left what it should have'}")
    else:
        loss = in_words(*(found[name] for name in ("test_loss", "test_reconstruction", "test_kl")))
        say(f"{task.label}: test loss {loss}  {60 * found['minutes']:.0f} s")


def finish(folder, plan, results, go_on, team):
    """Write the table and the picture, and say the table; 1 where a run has failed, else 0."""
    from npvae import summary  # matplotlib takes a second to import

    lines = summary.write(folder, plan, results)
    for line in lines:
        say(line)
    failed = sum(found is None for row in results for found in row)
    team.leave()
    if failed:
        complain(PROGRAM, f"{failed} run{'s' * (failed > 1)} failed; try again with: {go_on}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
