"""Mutation testing: what single changes to npvae the tests notice, `python -m tests.mutants npvae/layers.py …`.

A mutant is a module with one change. Each is tried in a temporary copy of the project, on the tests that concern the
module; it is killed if one of them fails, or if they take much longer than usual. Some that survive change nothing that
could be seen, or only what a message says: `tests/mutants.json` lists them, with reasons. Any other is a hole in the
tests. Results are kept in a file, one JSON object a line, with which an interrupted run goes on.
"""

import argparse
import ast
import copy
import hashlib
import importlib
import itertools
import json
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
LISTED = ROOT / "tests" / "mutants.json"
SLOW = "(random_networks or mistake_in_a_random or full_size or path_derivative or bounds_rise)"
EVERY = "(gradcheck and every_gradient_of and gaussian and conditional)"
EVALUATION = "estimates or bounds or importance_sampling or memory or terms_of or estimate_the_same"
EVALUATION += " or reconstruction_is or at_once or counts_the_samples or whatever_blocks"
TESTS = {  # of a module, or of one function in it: the files, the quickest first, and which tests in them
    "npvae/layers.py": ("layers distributions vae", ""),
    "npvae/distributions.py": ("distributions vae objectives", f"not {SLOW}"),
    "npvae/objectives.py": ("objectives gradcheck", f"(objectives and not {SLOW}) or {EVERY}"),
    "npvae/vae.py": ("vae parameters objectives gradcheck", f"not gradcheck and not {SLOW} or {EVERY}"),
    "npvae/optimizers.py": ("optimizers parameters", ""),
    "npvae/parameters.py": ("parameters layers optimizers", ""),
    "npvae/evaluate.py::estimates": ("evaluate", EVALUATION),
    "npvae/derivatives.py": ("derivatives", ""),
    "npvae/checker.py": ("checker", f"not {SLOW} and not few_wrong_elements"),
    "npvae/problem.py": ("problem checker", "problem or question_without or the_form_of or one_array or single_number"),
    "npvae/gradcheck.py": ("gradcheck", f"not {SLOW}"),
    "npvae/data/idx.py": ("idx", ""),
    "npvae/data/pixels.py": ("pixels", ""),
}
UNFINISHED = {"npvae/checker.py", "npvae/gradcheck.py"}  # whose survivors have not all been looked at
ELSEWHERE = -1  # exit code
MEMORY = 6 << 30  # bytes that a mutant may take
OTHER = {ast.Add: [ast.Sub], ast.Sub: [ast.Add], ast.Mult: [ast.Div], ast.Div: [ast.Mult], ast.Pow: [ast.Mult]}
OTHER |= {ast.FloorDiv: [ast.Mult], ast.Mod: [ast.Mult], ast.BitAnd: [ast.BitOr], ast.BitOr: [ast.BitAnd]}
OTHER |= {ast.LShift: [ast.RShift], ast.RShift: [ast.LShift], ast.And: [ast.Or], ast.Or: [ast.And]}
OTHER |= {ast.Lt: [ast.LtE, ast.GtE], ast.GtE: [ast.Gt, ast.Lt], ast.Gt: [ast.GtE, ast.LtE], ast.LtE: [ast.Lt, ast.Gt]}
OTHER |= {ast.Eq: [ast.NotEq], ast.NotEq: [ast.Eq], ast.Is: [ast.IsNot], ast.IsNot: [ast.Is]}
OTHER |= {ast.In: [ast.NotIn], ast.NotIn: [ast.In]}
NAMES = {"minimum": "maximum", "min": "max", "any": "all", "argmin": "argmax", "zeros_like": "ones_like"}
NAMES |= {new: old for old, new in NAMES.items()} | {"sum": "mean", "mean": "sum", "zeros": "ones"}
SWAPPED = {"where": 1, "subtract": 0, "divide": 0, "matmul": 0, "power": 0}  # function, the first argument of the two


def put(node, new):
    node.__class__, node.__dict__ = new.__class__, new.__dict__


def renamed(node, key, name):
    node = copy.copy(node)
    setattr(node, key, name)
    return node


def changes(node):
    """The ways to change a node, each a function that changes a node like it in place."""
    if isinstance(node, (ast.BinOp, ast.AugAssign, ast.BoolOp)):
        yield from (lambda n, op=op: setattr(n, "op", op()) for op in OTHER.get(type(node.op), ()))
    elif isinstance(node, ast.Compare):
        for i, old in enumerate(node.ops):
            yield from (lambda n, i=i, op=op: n.ops.__setitem__(i, op()) for op in OTHER[type(old)])
    elif isinstance(node, ast.UnaryOp):
        yield lambda n: put(n, n.operand)
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield lambda n: setattr(n, "value", not n.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        yield from (lambda n, by=by: setattr(n, "value", n.value + by) for by in (1, -1))
    elif isinstance(node, ast.Call):
        name = getattr(node.func, "attr", getattr(node.func, "id", None))
        key = "attr" if isinstance(node.func, ast.Attribute) else "id"
        if name in NAMES:
            yield lambda n: setattr(n, "func", renamed(n.func, key, NAMES[name]))
        if name in SWAPPED and len(node.args) > SWAPPED[name] + 1:
            yield lambda n: n.args.insert(SWAPPED[name], n.args.pop(SWAPPED[name] + 1))
        yield from (lambda n, i=i: n.keywords.pop(i) for i in range(len(node.keywords)))
    elif isinstance(node, ast.Slice):
        yield from (
            lambda n, end=end: setattr(n, end, None) for end in ("lower", "upper", "step") if getattr(node, end)
        )
    elif isinstance(node, (ast.If, ast.IfExp, ast.While)):
        yield lambda n: setattr(n, "test", ast.Constant(False))
        if not isinstance(node, ast.While):
            yield lambda n: setattr(n, "test", ast.Constant(True))
    elif isinstance(node, ast.comprehension) and node.ifs:
        yield lambda n: n.ifs.pop()
    elif isinstance(node, ast.Return) and node.value and getattr(node.value, "value", node) is not None:
        yield lambda n: setattr(n, "value", None)
    elif isinstance(node, (ast.Raise, ast.Break, ast.Continue)) or (
        isinstance(node, ast.Expr) and not isinstance(node.value, (ast.Constant, ast.Yield))
    ):
        yield lambda n: put(n, ast.Pass())
    if isinstance(node, ast.AugAssign) or (isinstance(node, ast.Assign) and not isinstance(node.targets[0], ast.Name)):
        yield lambda n: put(n, ast.Pass())
    if isinstance(node, ast.arguments):
        for kind in ("defaults", "kw_defaults"):
            for i, default in enumerate(getattr(node, kind)):
                if isinstance(default, ast.Constant) and isinstance(default.value, (str, type(None))):
                    yield lambda n, kind=kind, i=i: getattr(n, kind).__setitem__(i, ast.Constant("other"))


def header(statement):
    """The text of a statement, without the statements in it."""
    bare = copy.copy(statement)
    for block in ("body", "orelse", "finalbody", "handlers"):
        if block in bare._fields:
            setattr(bare, block, [ast.Pass()] * (block == "body"))
    return " ".join(ast.unparse(ast.fix_missing_locations(bare)).split()).removesuffix(" pass")


def alike(old, new):
    """How many characters two texts have in common at their beginning."""
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(old, new, strict=False)))


def difference(old, new, around=25):
    """Both texts where they differ, and a little around that."""
    begin = alike(old, new)
    end = alike(old[begin:][::-1], new[begin:][::-1])
    begin, parts = max(0, begin - around), []
    for text in (old, new):
        stop = min(len(text), len(text) - end + around)
        parts.append("…" * (begin > 0) + text[begin:stop] + "…" * (stop < len(text)))
    return "`{}` → `{}`".format(*parts)


def mutants(path, only=None, sources=True):
    """(name, line, source or None) of the mutants of a file, or of a function in it; names do not tell the line."""
    text, seen = (ROOT / path).read_text(), Counter()
    nodes, places = [], []  # all of the tree, and of each (its statement, the function that it is in)

    def visit(node, statement, scope):
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if docstring or isinstance(node, (ast.ImportFrom, ast.Import)):
            return
        if isinstance(node, ast.stmt):
            statement = node
        nodes.append(node)
        places.append((statement, scope))
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            scope = [*scope, node.name]
        for child in ast.iter_child_nodes(node):
            visit(child, statement, scope)

    tree = ast.parse(text)
    visit(tree, None, [])
    for node, (statement, scope) in zip(nodes, places, strict=True):
        if only and only not in [*scope, getattr(statement, "name", "")]:
            continue
        for change in changes(node):
            before, kept = (
                header(statement),
                (
                    node.__class__,
                    {key: value[:] if isinstance(value, list) else value for key, value in vars(node).items()},
                ),
            )
            change(node)
            after = header(statement)
            source = ast.unparse(ast.fix_missing_locations(tree)) if sources else None
            node.__class__, node.__dict__ = kept
            name = f"{path} {'.'.join(scope) or 'module'}: {difference(before, after)}"
            seen[name] += 1
            yield name + f" ({seen[name]})" * (seen[name] > 1), statement.lineno, source


def tests_of(target):
    files, expression = TESTS[target]
    return [*(f"tests/test_{name}.py" for name in files.split()), *(["-k", expression] if expression else [])]


class FirstFailure:
    """Of a run of pytest, what failed first."""

    name = None

    def pytest_runtest_logreport(self, report):
        if report.failed:
            self.name = self.name or report.nodeid

    def pytest_collectreport(self, report):
        if report.failed:
            self.name = self.name or f"{report.nodeid} cannot be loaded"


def test(folder, arguments, answer):
    """Run pytest in a copy of the project, as a process of its own; sends (exit code, what failed first)."""
    import pytest

    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    for name in [name for name in sys.modules if name.split(".")[0] in ("npvae", "tests")]:
        del sys.modules[name]
    os.chdir(folder)
    sys.path[0] = str(folder)
    for stream in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    failure = FirstFailure()
    options = ["-x", "-p", "no:cacheprovider", f"--basetemp={folder}/tmp"]
    code = pytest.main([*options, *arguments], plugins=[failure])
    loaded = sys.modules.get("npvae")
    if loaded and not loaded.__file__.startswith(str(folder)):
        code = ELSEWHERE
    answer.send((int(code), failure.name))


def attempt(folder, arguments, seconds):
    """(exit code, what failed first, seconds) of the tests; the code is None where they took too long, or crashed."""
    context, began = multiprocessing.get_context("fork"), time.monotonic()
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=test, args=(folder, arguments, sender))
    process.start()
    sender.close()
    code, name = None, "nothing: it took too long, or crashed"
    try:
        if receiver.poll(seconds):
            code, name = receiver.recv()
    except EOFError:
        pass
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            process.kill()
        process.join()
    return code, name, time.monotonic() - began


def run(target, folder, known, results):
    """Try the mutants of a module that are not known, and write down what comes of each."""
    path, _, only = target.partition("::")
    original = (ROOT / path).read_text()
    code, name, usual = attempt(folder, tests_of(target), 600)
    if code != 0:
        raise SystemExit(f"{target}: the tests must pass before anything is changed, but {name} (code {code})")
    for name, line, source in mutants(path, only):
        key = f"{name} {hashlib.sha256(original.encode()).hexdigest()[:8]}"
        if key in known:
            continue
        (folder / path).write_text(source)
        code, by, seconds = attempt(folder, tests_of(target), 10 + 5 * usual)
        (folder / path).write_text(original)
        if code == ELSEWHERE:
            raise SystemExit(f"{name}: the tests have not loaded the copy of npvae")
        known[key] = {"key": key, "target": target, "name": name, "line": line, "survived": code == 0, "by": by}
        known[key]["seconds"] = round(seconds, 2)
        results.write(json.dumps(known[key], ensure_ascii=False) + "\n")
        results.flush()


def table(targets, known):
    """Print a line for each module, and the survivors that are not listed; returns how many those are."""
    listed = {name: entry["kind"] for entry in json.loads(LISTED.read_text()) for name in entry["mutants"]}
    holes, gone, kinds = [], dict(listed), ("killed", "equivalent", "cosmetic", "survived")
    print("| module | mutants | " + " | ".join(kinds) + " |\n|---" + "|---:" * (1 + len(kinds)) + "|")
    total = Counter()
    for target in targets:
        path, _, only = target.partition("::")
        digest, count = hashlib.sha256((ROOT / path).read_bytes()).hexdigest()[:8], Counter()
        for name, line, _ in mutants(path, only, sources=False):
            gone.pop(name, None)
            found = known.get(f"{name} {digest}")
            if found is None:
                continue
            kind = listed.get(name, "survived") if found["survived"] else "killed"
            count[kind] += 1
            if kind == "survived":
                holes.append(f"{path}:{line}: {name}")
            elif kind == "killed" and name in listed:
                print(f"killed, but listed as {listed[name]}: {name}", file=sys.stderr)
        print(f"| `{target}` | {count.total()} | " + " | ".join(str(count[kind]) for kind in kinds) + " |")
        total += count
    print(f"| **all** | {total.total()} | " + " | ".join(str(total[kind]) for kind in kinds) + " |")
    print(*holes, sep="\n")
    for name in gone:
        if any(name.startswith(target.partition("::")[0] + " ") for target in targets):
            print(f"listed, but no longer a mutant: {name}", file=sys.stderr)
    return len(holes)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    finished = [target for target in TESTS if target not in UNFINISHED]
    parser.add_argument("targets", nargs="*", default=finished, metavar="MODULE", help=f"default: {' '.join(finished)}")
    parser.add_argument("--results", default="mutants.jsonl", help="file that is continued (default: mutants.jsonl)")
    parser.add_argument("--again", action="store_true", help="try those that survived again, on the tests as they are")
    parser.add_argument("--report", action="store_true", help="try none, only tell what is known")
    options = parser.parse_args()
    if unknown := set(options.targets) - set(TESTS):
        parser.error(f"{', '.join(unknown)}: expected one of {', '.join(TESTS)}")
    os.environ |= {"OPENBLAS_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    sys.dont_write_bytecode = True
    for module in ("numpy", "pytest", "matplotlib.image", "requests", "tqdm"):
        importlib.import_module(module)  # once, before the processes part
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the copy is removed

    path = Path(options.results)
    lines = path.read_text().splitlines() if path.exists() else []
    known = {result["key"]: result for result in map(json.loads, lines)}
    if options.again:
        known = {key: result for key, result in known.items() if not result["survived"]}
    if not options.report:
        with tempfile.TemporaryDirectory() as folder, path.open("a") as results:
            copied = Path(folder) / "project"
            for name in ("npvae", "tests"):
                shutil.copytree(ROOT / name, copied / name, ignore=shutil.ignore_patterns("__pycache__"))
            shutil.copy(ROOT / "pyproject.toml", copied)
            for target in options.targets:
                run(target, copied, known, results)
    return 1 if table(options.targets, known) else 0


if __name__ == "__main__":
    sys.exit(main())
