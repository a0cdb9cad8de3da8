"""Long computations side by side."""

import itertools
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait

from npvae.commands import exit_on_signal


def in_processes(function, tasks, jobs):
    """Call a function with each of these tuples of arguments, `jobs` at a time; yields (task, result) as they end.

    Each call has a process and one thread: two with more would wait for each other's. Where one fails, or we are
    stopped, all that run are told so by one SIGTERM, and none is begun any more.
    """
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    context = multiprocessing.get_context("spawn")
    tasks, running, stopping = iter(tasks), {}, context.Event()
    with ProcessPoolExecutor(jobs, context, be_a_worker, (stopping,)) as pool:
        try:
            while True:
                for task in itertools.islice(tasks, jobs - len(running)):  # no more than can begin at once
                    running[pool.submit(call, function, task)] = task
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    yield running.pop(future), future.result()
        except BaseException:  # else the pool would wait for them
            stopping.set()
            for worker in multiprocessing.active_children():
                worker.terminate()
            raise


# in a worker


def be_a_worker(stopping):
    """Heed nobody but the process that has started this one, and end with it, however it ends."""
    call.stopping = stopping
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # between two calls the pool says when to end
    if hasattr(os, "setsid"):  # not on Windows
        os.setsid()  # neither the terminal nor a signal to all of its programs reaches another session
    threading.Thread(target=end_with_parent, daemon=True).start()


def end_with_parent():
    multiprocessing.connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


def call(function, task):
    """Call a function, which SIGTERM stops by an exception, so that it tidies up, unless it heeds that itself."""
    signal.signal(signal.SIGTERM, exit_on_signal)
    try:
        if call.stopping.is_set():  # by a signal that came too early
            raise SystemExit
        return function(*task)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
