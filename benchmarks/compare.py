"""npvae beside PyTorch and JAX, in one run: `python benchmarks/compare.py --dataset mnist`.

Four parts, all or those that are named: 'steps' times a training step in three set-ups, 'start' the way from the shell
to the first finished epoch, with its memory, and the imports, 'evaluation' the importance-sampled log p(x), 'growth' a
step of npvae over batch sizes and widths. Prints tables; writes results.json, steps.png and growth.png.

Each contender has a process of its own and waits while another one runs; rounds alternate, so that a slow moment of the
machine hits all alike, and begin with steps that are not timed. Before the clock starts, all take the same steps from
the same parameters with the same batches and the same noise, and their losses are compared: they do the same work.
"""

import argparse
import contextlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from contenders import CONTENDERS, LATENT, TITLES, Setup, data_parser, load_data

from npvae.commands import command, positive

TRAIN = "python -m npvae.train"
PARTS = ("steps", "start", "evaluation", "growth")
SETUPS = (Setup(500, "tanh", 100), Setup(400, "relu", 128), Setup(200, "relu", 32))
SAME_STEPS = 50
SAMPLES, EVALUATED = 500, 200
GROWTH = {
    "batch size": [Setup(500, "tanh", size) for size in (16, 32, 64, 128, 256, 512, 1024)],
    "hidden units": [Setup(width, "tanh", 100) for width in (100, 200, 500, 1000, 2000)],
}
PAUSE = 0.1  # seconds, in which the threads of the contender before stop to spin


class Worker:
    """A contender in a process of its own."""

    def __init__(self, name, setup, options):
        self.name = name
        words = worker_command(name, setup, options)
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, request, count):
        time.sleep(PAUSE)
        try:
            print(request, count, file=self.process.stdin, flush=True)
            return json.loads(self.process.stdout.readline())
        except (BrokenPipeError, json.JSONDecodeError):
            raise SystemExit(f"{self.name} has ended; if its message above does not help, leave it out") from None

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.process.communicate()


def worker_command(name, setup, options):
    return [sys.executable, __file__, "--worker", name, json.dumps(vars(setup)), *data_options(options)]


def data_options(options):
    return ["--dataset", options.dataset, "--data-dir", options.data_dir]


def work(name, setup, images, test_images):
    """Serve the requests of `Worker.ask`, one a line: 'same 50', 'time 100', 'epoch 1', 'evaluate 500'."""
    contender = CONTENDERS[name](setup, images)
    rng = np.random.default_rng(2)
    for line in sys.stdin:
        request, count = line.split()
        answer, count = "done", int(count)
        rows = rng.integers(0, len(images), (count, setup.batch_size))
        if request == "same":
            eps = rng.standard_normal((count, setup.batch_size, LATENT), np.float32)
            answer = contender.run(rows, eps)
        elif request == "time":
            contender.run(rows)  # not timed: threads wake, caches fill, functions are compiled
            began = time.perf_counter()
            contender.run(rows)
            answer = (time.perf_counter() - began) / count
        elif request == "epoch":
            order = rng.permutation(len(images))
            batches = len(images) // setup.batch_size
            contender.run(order[: batches * setup.batch_size].reshape(batches, -1))
        elif request == "evaluate":
            contender.log_p(test_images[: EVALUATED // 10], count)
            began = time.perf_counter()
            value = contender.log_p(test_images[:EVALUATED], count)
            answer = time.perf_counter() - began, value
        print(json.dumps(answer), flush=True)


def alternate(workers, rounds, request, counts):
    """Answers of each worker to the same request, `rounds` times in turn, forwards and backwards: name → list."""
    answers = {name: [] for name in workers}
    for i in range(rounds):
        for name in list(workers)[:: -1 if i % 2 else 1]:
            answers[name].append(workers[name].ask(request, counts[name]))
    return answers


def check_same_work(workers):
    """Let all take the same steps; the losses must agree. Returns name → last loss and largest relative difference."""
    reference, found = None, {}
    for name, worker in workers.items():
        losses = worker.ask("same", SAME_STEPS)
        if losses:
            reference = reference or losses
            worst = max(abs(loss / expected - 1) for loss, expected in zip(losses, reference, strict=True))
            assert worst < 1e-3, f"{name} does not do the same work as the others: {losses[-1]}, {reference[-1]}"
            found[name] = {"loss": losses[-1], "difference": worst}
    return found


def spread(values):
    q25, median, q75 = np.quantile(values, (0.25, 0.5, 0.75)).tolist()
    return {"median": median, "min": min(values), "q25": q25, "q75": q75}


def ratios(ours, theirs):
    """Of the two times of each round."""
    return [a / b for a, b in zip(ours, theirs, strict=True)]


def median_ratio(ours, theirs):
    return float(np.median(ratios(ours, theirs)))


def steps(options):
    """Milliseconds per step in each set-up, and npvae's time over each contender's, round by round."""
    result = {}
    for setup in SETUPS:
        with contextlib.ExitStack() as stack:
            workers = {name: stack.enter_context(Worker(name, setup, options)) for name in options.contenders}
            losses = check_same_work(workers)
            count = max(1, options.steps * SETUPS[0].operations // setup.operations)
            times = alternate(workers, options.rounds, "time", dict.fromkeys(workers, count))
        print(f"\n{setup}: milliseconds per step, {options.rounds} rounds of {count} steps")
        print(f"{'':<32}{'median':>8}{'min':>8}{'quartiles':>16}   npvae / this, quartiles       loss")
        rows = {}
        for name, seconds in times.items():
            ms = spread([1e3 * value for value in seconds])
            ratio = spread(ratios(times["npvae"], seconds))
            rows[name] = {"ms": ms, "ratio": ratio, **losses.get(name, {})}
            loss = f"{losses[name]['loss']:9.4f}" if name in losses else ""
            print(
                f"{TITLES[name]:<32}{ms['median']:8.2f}{ms['min']:8.2f}{ms['q25']:8.2f} –{ms['q75']:6.2f}"
                f"{ratio['median']:15.2f}{ratio['q25']:8.2f} –{ratio['q75']:5.2f}{loss:>11}",
                flush=True,
            )
        worst = max(value["difference"] for value in losses.values())
        print(f"losses after {SAME_STEPS} same steps; they differ by {worst:.0e} at most in any of them", flush=True)
        result[str(setup)] = {"steps": count, "contenders": rows}
    return result


def start(options):
    """Seconds and memory from the shell to the first finished epoch; seconds of the imports."""
    return {"epoch": first_epochs(options), "import": imports(options)}


def first_epochs(options):
    names = [TRAIN, *(name for name in options.contenders if name != "products")]
    seconds, memory = {name: [] for name in names}, {name: [] for name in names}
    for _ in range(options.starts):
        for name in names:
            time.sleep(PAUSE)
            taken, megabytes = first_epoch(name, options)
            seconds[name].append(taken)
            memory[name].append(megabytes)
    print(f"\nfrom the shell to the first finished epoch of {SETUPS[0]}; {options.starts} starts in turn")
    print(f"{TRAIN} also evaluates the test set and saves; its memory includes the pictures that it draws then")
    print(f"{'':<32}{'seconds':>9}{'peak MB':>9}   npvae's seconds / this")
    result = {}
    for name in names:
        ratio = median_ratio(seconds[TRAIN], seconds[name])
        row = result[name] = {"seconds": float(np.median(seconds[name])), "MB": max(memory[name]), "ratio": ratio}
        print(f"{TITLES.get(name, name):<32}{row['seconds']:9.2f}{row['MB']:9.0f}{ratio:12.2f}", flush=True)
    return result


def first_epoch(name, options):
    """Seconds until a new process has finished an epoch, and megabytes that it needed at most until its end."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        if name == TRAIN:
            words = [sys.executable, "-m", "npvae.train", "--epochs", "1", "--out", f"{folder}/run"]
            words += data_options(options)
        else:
            words = worker_command(name, SETUPS[0], options)
        environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": folder}  # compiled anew each time
        process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        if name != TRAIN:
            print("epoch 1", file=process.stdin, flush=True)
        process.stdin.close()
        for line in process.stdout:
            if line.startswith(("epoch 1/1", '"done"')):
                seconds = time.perf_counter() - began
        process.stdout.close()
        _, process.returncode, usage = os.wait4(process.pid, 0)
    if process.returncode:
        raise SystemExit(f"{name} failed; if its message above does not help, leave it out")
    return seconds, usage.ru_maxrss / (1024 if sys.platform != "darwin" else 1024**2)


def imports(options):
    modules = ["numpy", "npvae", *(name for name in versions(options) if name != "numpy")]
    code = "import time; began = time.perf_counter(); import {}; print(time.perf_counter() - began)"
    times = {module: [] for module in modules}
    for _ in range(options.rounds):
        for module in modules:
            words = [sys.executable, "-c", code.format(module)]
            times[module].append(float(subprocess.run(words, check=True, capture_output=True, text=True).stdout))
    print(f"\nimport, {options.rounds} times in turn{'seconds':>12}   this / numpy's")
    result = {}
    for module in modules:
        ratio = median_ratio(times[module], times["numpy"])
        row = result[module] = {"seconds": float(np.median(times[module])), "ratio": ratio}
        print(f"{module:<24}{row['seconds']:15.3f}{row['ratio']:12.2f}", flush=True)
    return result


def evaluation(options):
    """Seconds of the importance-sampled log p(x)."""
    names = [name for name in options.contenders if name in ("npvae", "torch")]
    with contextlib.ExitStack() as stack:
        workers = {name: stack.enter_context(Worker(name, SETUPS[0], options)) for name in names}
        check_same_work(workers)
        answers = alternate(workers, options.rounds, "evaluate", dict.fromkeys(workers, SAMPLES))
    print(f"\nlog p(x) of {EVALUATED} images, {SAMPLES} samples each: {SETUPS[0]} after {SAME_STEPS} steps")
    print(f"{'':<32}{'seconds':>9}   npvae / this      log p(x)")
    result = {}
    for name, pairs in answers.items():
        seconds = [answer[0] for answer in pairs]
        ratio = median_ratio([answer[0] for answer in answers["npvae"]], seconds)
        result[name] = {"seconds": float(np.median(seconds)), "ratio": ratio, "log p(x)": pairs[0][1]}
        print(f"{TITLES[name]:<32}{result[name]['seconds']:9.2f}{ratio:15.2f}{pairs[0][1]:14.2f}", flush=True)
    values = [row["log p(x)"] for row in result.values()]
    assert max(values) - min(values) < 1e-3 * abs(values[0]), "the contenders do not estimate the same"
    return result


def growth(options):
    """Milliseconds of npvae's step over batch size and width, of its products, and of as many operations at peak."""
    result = {}
    for what, setups in GROWTH.items():
        print(f"\n{what:>14}{'npvae ms':>12}{'products ms':>13}{'at peak ms':>12}{'µs per image':>14}{'of peak':>9}")
        result[what] = []
        for setup in setups:
            with contextlib.ExitStack() as stack:
                workers = {
                    name: stack.enter_context(Worker(name, setup, options)) for name in ("npvae", "products", "peak")
                }
                count = max(3, options.steps * SETUPS[0].operations // setup.operations // 2)
                counts = {"npvae": count, "products": count, "peak": 3}
                seconds = alternate(workers, max(2, options.rounds // 3), "time", counts)
            row = {name: 1e3 * float(np.median(values)) for name, values in seconds.items()}
            row["peak"] *= setup.operations / CONTENDERS["peak"].operations
            row[what] = setup.batch_size if what == "batch size" else setup.hidden
            row["µs per image"] = 1e3 * row["npvae"] / setup.batch_size
            result[what].append(row)
            share = row["peak"] / row["npvae"]
            print(
                f"{row[what]:14}{row['npvae']:12.2f}{row['products']:13.2f}{row['peak']:12.2f}"
                f"{row['µs per image']:14.1f}{share:9.0%}",
                flush=True,
            )
    return result


def versions(options):
    wanted = ["numpy", *(name for name in ("torch", "jax") if any(name in each for each in options.contenders))]
    return {name: importlib.metadata.version(name) for name in wanted}


def installed(name):
    package = name.split("-")[0]
    if name == "torch-compile" and not any(map(shutil.which, ("c++", "g++", "clang++"))):
        return False  # it needs a compiler
    return package in ("npvae", "products") or importlib.util.find_spec(package) is not None


@command("python benchmarks/compare.py")
def main(arguments=None):
    parser = data_parser("python benchmarks/compare.py", __doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="(default: all)")
    parser.add_argument("--contenders", nargs="+", choices=list(TITLES), help="(default: all that are installed)")
    parser.add_argument("--rounds", type=positive, default=21, help="of each contender (default: 21)")
    parser.add_argument("--steps", type=positive, default=60, help="per round, of the largest set-up (default: 60)")
    parser.add_argument("--starts", type=positive, default=3, help="from the shell, of each contender (default: 3)")
    parser.add_argument("--cores", type=positive, help="that all contenders may use (default: all)")
    parser.add_argument("--out", type=Path, default=Path("runs/compare"), help="folder (default: runs/compare)")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        name, setup = options.worker
        data = load_data(options)
        return work(name, Setup(**json.loads(setup)), data.train_images, data.test_images)

    if options.cores:
        if not hasattr(os, "sched_setaffinity"):
            parser.error("--cores needs an operating system that can bind a process to cores")
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])
    options.contenders = options.contenders or [name for name in TITLES if installed(name)]
    if "npvae" not in options.contenders:
        options.contenders.insert(0, "npvae")
    dataset = load_data(options)  # so that a missing one fails here, and is drawn only once
    options.out.mkdir(parents=True, exist_ok=True)  # as does a folder that cannot be
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    about = {"versions": versions(options), "python": platform.python_version(), "cores": cores, "data": dataset.name}
    print(f"{dataset}; {cores} cores; {', '.join(f'{name} {v}' for name, v in about['versions'].items())}", flush=True)

    results, measure = {"about": about}, {"steps": steps, "start": start, "evaluation": evaluation, "growth": growth}
    for part in PARTS:
        if part in options.parts:
            results[part] = measure[part](options)
    (options.out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    from charts import draw  # not at the top: the workers, whose memory is measured, would load Matplotlib

    draw(results, options.out)
    print(f"\nwritten to {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
