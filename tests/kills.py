"""Kill a training again and again, also with a second one on the same run: `python -m tests.kills 200`.

Each time one or two processes resume the run (or begin it, if there is none yet), and are killed within two seconds,
while they import, load, train or save. In the end the run must have the same bytes as one that nobody disturbed.
"""

import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from npvae.runs import Run
from tests.conftest import SMALL, command

LONGEST = 2.0  # seconds until a kill, at most


def start(folder, data, epochs):
    settings = ("--dataset", "strokes", "--data-dir", data, *SMALL, "--epochs", epochs)
    settings += ("--checkpoint-every", 0.05, "--film")
    begun = (folder / "config.json").exists()
    arguments = ("--resume", folder) if begun else (*settings, "--out", folder)
    return subprocess.Popen(command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def main(kills):
    work = Path(tempfile.mkdtemp())
    whole, run = work / "whole", work / "run"
    settings = work / "data", kills  # an epoch for each: so that the run is not finished before the last
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
            process.kill()
            _, err = process.communicate()
            assert process.returncode in (-9, 0, 2), err
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
    sys.exit(main(int(sys.argv[1])))
