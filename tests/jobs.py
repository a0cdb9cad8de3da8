"""Jobs of several processes, for tests: started, watched, and never waited for without a limit."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

MPIEXEC = shutil.which("mpiexec", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
LIMIT = 180  # seconds until a job is taken to hang; on a busy machine its processes wait for each other at every step


def job_of(count, *arguments, **options):
    """Start a Python of so many processes, in a session of its own."""
    command = [MPIEXEC, "-n", str(count), sys.executable, *map(str, arguments)]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, start_new_session=True, **pipes, **options)


def end_of(process):
    """What a job has left and said; one that hangs is killed and fails."""
    try:
        out, err = process.communicate(timeout=LIMIT)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)
    finally:
        process.kill()  # with mpiexec go all whom it has started
        process.wait()


def wait_for(path, process):
    """Wait until a process has made a file."""
    while not path.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def processes_of(process):
    """The ids of the processes of a job, in the order of their ranks."""

    def children(pid):
        return map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())

    def rank(pid):
        return re.search(r"\0PMI_RANK=(\d+)\0", Path(f"/proc/{pid}/environ").read_text())[1]

    return sorted((pid for proxy in children(process.pid) for pid in children(proxy)), key=rank)


def together(count, *arguments, **options):
    return end_of(job_of(count, *arguments, **options))
