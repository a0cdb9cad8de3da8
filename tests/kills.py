"""Kill a training again and again, also with a second one on the same run: `python -m tests.kills 200`.

Each time one or two processes resume the run (or begin it, if there is none yet), and are killed within two seconds,
while they import, load, train or save. In the end the run must have the same bytes as one that nobody disturbed.

With `python -m tests.kills 20 3` it is trained by jobs of three processes each, of which one is killed: the job must
end within seconds.
"""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from npvae.runs import Run
from tests.conftest import SMALL, command
from tests.jobs import job_of, processes_of

LONGEST = 2.0  # seconds until a kill, at most
AFTERWARDS = 10  # seconds until all of a job has ended, at most


def start(folder, data, epochs, count):
    settings = ("--dataset", "strokes", "--data-dir", data, *SMALL, "--epochs", epochs)
    settings += ("--checkpoint-every", 0.05, "--film")
    begun = (folder / "config.json").exists()
    arguments = ("--resume", folder) if begun else (*settings, "--out", folder)
    if count > 1:
        return job_of(count, *command(*arguments)[1:])
    return subprocess.Popen(command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def kill(process, count, rng):
    """Kill a process, or one of a job; or mpiexec, where there is none yet."""
    with contextlib.suppress(OSError, IndexError):  # they come and go
        os.kill(rng.choice(processes_of(process) if count > 1 else [process.pid]), signal.SIGKILL)
        return
    process.kill()


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def main(kills, count=1):
    work = Path(tempfile.mkdtemp())
    whole, run = work / "whole", work / "run"
    settings = work / "data", kills, count  # an epoch for each: so that the run is not finished before the last
    process = start(whole, *settings)
    _, err = process.communicate()
    assert process.returncode == 0, err
    rng, refused, done, rounds = random.Random(0), 0, 0, 0
    began = time.monotonic()
    while done < kills:
        rounds += 1
        processes = [start(run, *settings) for _ in range(1 + rounds % 2)]
        time.sleep(rng.uniform(0, LONGEST))
        for process in processes:
            done += process.poll() is None
            kill(process, count, rng)
            _, err = process.communicate(timeout=AFTERWARDS)
            assert process.returncode in (-9, 9, 137, 0, 2), err
            assert err.count("\n") <= 1, err
            refused += "is being trained by" in err
    process = start(run, *settings)
    _, err = process.communicate()
    assert process.returncode == 0, err
    same = (run / "checkpoint.npz").read_bytes() == (whole / "checkpoint.npz").read_bytes()
    rows = [[row | {"seconds": 0} for row in Run.open(folder).metrics()] for folder in (run, whole)]
    print(
        f"{done} kills in {rounds} rounds, {time.monotonic() - began:.0f} s; {refused} times the run was being trained"
    )
    print(f"checkpoint {'the same' if same else 'ANOTHER'}, metrics {'the same' if rows[0] == rows[1] else 'OTHERS'}")
    print(f"stray files: {', '.join(set(names(run)) ^ set(names(whole))) or 'none'}")
    shutil.rmtree(work)
    return 0 if same and rows[0] == rows[1] and names(run) == names(whole) else 1


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
