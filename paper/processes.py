"""Long computations side by side."""

import multiprocessing
import os
import signal
from concurrent.futures import ProcessPoolExecutor, as_completed


def in_processes(function, tasks, jobs):
    """Call a function with each of these tuples of arguments, `jobs` at a time; yields (task, result) as they end.

    Each call has a process and one thread: two with more would wait for each other's. Where one fails, or we are
    stopped, all are, by SIGTERM.
    """
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    # Ctrl-C ends a worker without a word, unless it knows better
    quiet = {"initializer": signal.signal, "initargs": (signal.SIGINT, signal.SIG_DFL)}
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), **quiet) as pool:
        try:
            futures = {pool.submit(function, *task): task for task in tasks}
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:  # else the pool would wait for them
            for worker in multiprocessing.active_children():
                worker.terminate()
            raise
