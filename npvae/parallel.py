"""One training, or one evaluation, on the processes that `mpiexec -n N` starts: what they say to each other, in MPI.

All processes run the same program, hold the same model and draw the same random numbers. Of every batch each takes a
part. The loss is a mean over examples, so that its gradient is the mean of the parts' gradients, each weighted by its
part of the batch; and it lies in one flat vector, which the processes share as they share the batch. A step is

    loss, backward              each process, of its part of the batch
    all_reduce(loss)            the loss of the whole batch
    reduce_scatter(gradient)    each process gets the sum over all of them, for its part of the vector
    optimizer                   each process moves its part of the parameters; the optimizer's state lies there alone
    all_gather(parameters)      each process gets the parts of the others
    most(wishes)                has one of them been told to stop?

Whatever decides how it goes on, as a loss that is not finite or a signal to stop, is the same number in each of them:
no process waits for one that has left. Where one fails alone, it ends the job.

Trainings that have nothing to do with each other are handed out instead, one by one: see `Team.hand_out`.

This is the only module that knows of MPI, and imports mpi4py only where a launcher has started several processes.
NumPy is not imported here, because OpenBLAS reads `limit_threads` as it is loaded.
"""

import array
import contextlib
import functools
import io
import itertools
import os
import re
import sys
import time
from pathlib import Path
from typing import NamedTuple

from npvae.commands import UserError

THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")  # environment variables that OpenBLAS obeys
# what launchers tell a process: how many there are, which one it is, and how many are on its machine
HYDRA = ("PMI_SIZE", "PMI_RANK", "MPI_LOCALNRANKS")  # MPICH, Intel MPI; the first two also Slurm
OPEN_MPI = ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE")
SLURM = ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_STEP_TASKS_PER_NODE")
TERMINALS = ("/dev/pts/", "/dev/tty")
OF_LAUNCHERS = ("PMI_", "PMIX_", "MPI_LOCAL", "OMPI_")  # how the names of all that they set begin, but for Slurm's
ASLEEP = 0.01  # seconds between two looks at whether the others are there
LOOK = 0.2  # seconds between two looks at whether somebody has been told to stop, where a task takes minutes
HEARD = 0.2  # seconds, until the launcher has passed on what a process said before the end of the job
FIRST_SPEAKS = 1.0  # seconds, until the first process has said what the others would say too


class Alone:
    """A program of one process: what several would have to do together is done already."""

    rank, size, leads = 0, 1, True  # as in `Team`

    def part(self, count):
        return slice(0, count)

    def all_reduce(self, array):
        return array

    def reduce_scatter(self, vector, part):
        pass

    def all_gather(self, vector):
        pass

    def most(self, *numbers):
        return numbers

    def broadcast(self, make):
        return make()

    def hand_out(self, function, tasks, stop):
        for task in tasks:
            if stop.signal:
                return
            yield task, function(*task, lambda: stop.signal or 0)

    def leave(self):
        pass


class Team:
    """One of several processes; the others call the same methods, with arrays of the same sizes, in the same order.

    Parameters
    ----------
    MPI : module
        `mpi4py.MPI`.

    Attributes
    ----------
    rank, size : int
        Which process this is, from 0 on, and how many there are.
    leads : bool
        Whether this is the first: the one that reads, writes and speaks.
    """

    joined = None  # the team of this process, once it has one

    def __init__(self, MPI):
        Team.joined = self
        self.MPI, self.comm = MPI, MPI.COMM_WORLD
        self.rank, self.size = self.comm.rank, self.comm.size
        self.leads, self.has_left = self.rank == 0, False

    def __str__(self):
        limits = [f", each with {name}={os.environ[name]}" for name in THREADS if name in os.environ]
        return f"{self.size} processes{''.join(limits[:1])}"

    def part(self, count):
        """The part of `count` rows, or elements of a vector, that is this process's: a slice, which may be empty."""
        return slice(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    def counts(self, count):
        """How many of `count` are of each process's part."""
        ends = [rank * count // self.size for rank in range(self.size + 1)]
        return [end - start for start, end in itertools.pairwise(ends)]

    def all_reduce(self, array):
        """Make of an array its sum over the processes, in place; returns it."""
        self.comm.Allreduce(self.MPI.IN_PLACE, array)
        return array

    def reduce_scatter(self, vector, part):
        """Write the sum of a vector over the processes, as far as it is of this one's part, into `part`."""
        self.comm.Reduce_scatter(vector, part, self.counts(len(vector)))

    def all_gather(self, vector):
        """Write the parts of the others, each of which they have of their own vector, into this one."""
        self.comm.Allgatherv(self.MPI.IN_PLACE, [vector, self.counts(len(vector))])

    def most(self, *numbers):
        """The largest that any process has given, of each of some whole numbers."""
        numbers = array.array("q", numbers)
        self.comm.Allreduce(self.MPI.IN_PLACE, numbers, self.MPI.MAX)
        return tuple(numbers)

    def broadcast(self, make):
        """What `make()` returns in the first process; where it raises there, the others end without a word."""
        made = None
        try:
            if self.leads:
                made = (make(),)
        finally:
            self.meet()
            heard = self.comm.bcast(made)  # a pickle, of this very program
            if heard is None:
                self.leave()
        if heard is None:
            sys.exit()
        return (made or heard)[0]

    def hand_out(self, function, tasks, stop):
        """Call a function with each of some tuples of arguments, in whichever process is free, but for the first.

        The first hands out, and yields (task, result) as they end; the others work until the end, and yield nothing.
        The function, which is one of a module, gets one argument more: a function that returns the signal by which any
        of them was told to stop, as the first is by `stop.signal`, or 0. After that no task is begun.
        """
        from concurrent.futures import FIRST_COMPLETED, wait

        from mpi4py.futures import MPICommExecutor

        line, self.word, self.stop = self.comm.Dup(), array.array("q", [0]), stop
        self.heard = None if self.leads else line.Ibcast(self.word)  # the word of the first, once it has one
        with contextlib.ExitStack() as stack:
            executor = stack.enter_context(MPICommExecutor(self.comm))  # in which the others work
            if self.leads:
                try:
                    futures = {executor.submit(_call, function, task): task for task in tasks}
                    waiting = set(futures)
                    while waiting:
                        done, waiting = wait(waiting, LOOK, FIRST_COMPLETED)
                        yield from ((futures[each], each.result()) for each in done if not each.cancelled())
                        if stop.signal and self.heard is None:
                            for each in waiting:
                                each.cancel()  # unless it is begun
                            self.word[0] = stop.signal
                            self.heard = line.Ibcast(self.word)  # beside the thread of the executor, which MPI allows
                except BaseException:
                    stack.pop_all()  # the others are not waited for: the job ends
                    raise
        if self.heard is None:
            self.heard = line.Ibcast(self.word)  # of 0
        asleep_until(self.heard)

    def told(self):
        """The signal with which this process, or any other, by the word of the first, was told to stop; or 0."""
        return self.stop.signal or (self.heard.Test() and self.word[0]) or 0

    def meet(self):
        """Wait for the others for long."""
        asleep_until(self.comm.Ibarrier())

    def leave(self):
        """Say that this process has nothing to do with the others any more, as they say of it."""
        self.has_left = True

    def abort(self, code):
        """End the job: all processes, at once."""
        time.sleep(HEARD)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # the library would say that it does what it is told
        self.comm.Abort(code)


ALONE = Alone()


def _call(function, task):
    """Do, in one of the processes, what the first has handed out."""
    return function(*task, Team.joined.told)


def asleep_until(request):
    """Wait for long, asleep: whoever waits in MPI for a moment keeps a core busy."""
    while not request.Test():
        time.sleep(ASLEEP)


class Job(NamedTuple):
    """What a launcher has started."""

    size: int  # processes
    rank: int  # which of them this is
    local: int  # how many of them are on this machine


def job():
    """What this process is one of: a `Job`, of one process where no launcher has started it."""
    slurm = [SLURM] * ("PMIX_RANK" in os.environ)  # without which the tasks of a step know nothing of each other
    for size, rank, local in (HYDRA, OPEN_MPI, *slurm):
        if os.environ.get(size, "").isdecimal() and os.environ.get(rank, "").isdecimal():
            here = os.environ.get(local) or os.environ.get(SLURM[2], "")  # Slurm's are as 2(x3)
            here = re.match(r"\d+", here or os.environ[size])
            return Job(int(os.environ[size]), int(os.environ[rank]), int(here[0]) if here else 1)
    return Job(1, 0, 1)


@functools.cache
def this_team():
    """Those that this process works with: `ALONE`, or the `Team` of a job of several processes."""
    size, rank, _ = job()
    if size == 1:
        return ALONE
    try:
        from mpi4py import MPI

        found = MPI.COMM_WORLD.size
        if found == size:
            return Team(MPI)
        reason = f"the MPI of mpi4py knows of {found}: the two are of different MPIs"
    except (ImportError, RuntimeError) as error:  # the second where there is no library of an MPI
        reason = f"mpi4py cannot be imported ({error}): python -m pip install mpi4py, and mpich where there is no MPI"
    if rank > 0:
        sys.exit()  # the first says it
    raise UserError(f"{size} processes were started, but {reason}")


def together(main):
    """Decorate the `main(arguments)` of a command so that its processes end together, with one message and code.

    The first speaks for all. Where another fails alone, it says so itself, and ends the job.
    """

    @functools.wraps(main)
    def wrapped(arguments=None):
        size, rank, _ = job()
        if size == 1:
            return main(arguments)
        stderr = sys.stderr
        if rank > 0:
            sys.stdout, sys.stderr = open(os.devnull, "w", encoding="utf-8"), io.StringIO()
        try:
            code = main(arguments)
        except SystemExit as exit:
            code = exit.code
        except BaseException:
            sys.excepthook(*sys.exc_info())
            code = 1
        if Team.joined and Team.joined.has_left:
            Team.joined.meet()  # the first may have pictures to draw
        elif Team.joined:
            if rank > 0:
                time.sleep(FIRST_SPEAKS)
                if said := sys.stderr.getvalue().strip():
                    print(f"process {rank} of {size}: {said}", file=stderr, flush=True)
            Team.joined.abort(code or 1)
        return 0 if rank > 0 else code

    return wrapped


def hides_bars():
    """What a bar of tqdm takes as `disable`: None, to be shown on a terminal; False where the launcher has one.

    What a process of a job says goes through pipes to the launcher; systems other than Linux do not tell to which.
    """
    size, rank, _ = job()
    if size == 1 or rank > 0:
        return None
    try:
        process, stream = "self", "pipe:"
        while stream.startswith("pipe:"):
            process = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[1]  # its parent
            stream = os.readlink(f"/proc/{process}/fd/2")
        return False if stream.startswith(TERMINALS) else None
    except OSError:
        return None


def cores():
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


limited = {}  # environment variables that this module has set, and no user


def limit_threads():
    """Have OpenBLAS, before it is loaded, use no more than this process's share of the machine's cores.

    Else each process would have a thread for every core, and they wait for each other by spinning.
    """
    local = job().local
    if local > 1 and not any(name in os.environ for name in THREADS):
        os.environ[THREADS[0]] = limited[THREADS[0]] = share(local)


def share(count):
    """The cores for each of so many processes of this machine, as text."""
    return str(max(1, cores() // count))


def own_environment():
    """The environment for a program that one of a job starts, and that is no part of the job: a dict.

    Each but the first process of the job starts one at a time, and these share the cores.
    """
    size, _, local = job()
    if size == 1:
        return dict(os.environ)
    kept = {name: text for name, text in os.environ.items() if not name.startswith(OF_LAUNCHERS) and name not in SLURM}
    first_is_here = local == size  # or may be
    return kept | dict.fromkeys(limited, share(local - first_is_here))
