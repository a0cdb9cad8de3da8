"""What the exercises' judge makes of mistakes that nobody listed: `python -m tests.exercise_mutations`.

Solutions, npvae's and those of `tests.exercise_styles`, are changed at random in one place, by operators of which most
are not among those that the judge itself tries. Whether a change matters is decided on random inputs that the judge
does not know. Prints Markdown tables; the same seed gives the same numbers.
"""

import argparse
import ast
import builtins
import contextlib
import copy
import io
import itertools
import signal
import sys
import warnings
from collections import Counter

import numpy as np

from npvae.exercises import judge as judging
from npvae.exercises.course import MODULES, Case, exercise, solved
from npvae.exercises.judge import judge
from npvae.exercises.lessons.ex07_vae import parameters
from npvae.exercises.outcome import OutOfTime, alike, attempt
from npvae.exercises.source import edited, loaded
from npvae.exercises.verdict import Verdict
from tests.exercise_styles import STYLES, WRONG, earlier, imported, verdicts, with_mistake

SECONDS = 5  # for one function on one set of inputs
INPUTS = 30
EXERCISES = range(1, 12)


# operators: each gives the ways to change a node of a function, as functions that change a copy of it in place


def becomes(new):
    def change(node):
        new_node = new(node)
        node.__class__, node.__dict__ = new_node.__class__, new_node.__dict__

    return change


def drop_term(node, scope):
    """a + b → a, or → b, likewise for other operators."""
    if isinstance(node, ast.BinOp):
        yield becomes(lambda node: node.left)
        yield becomes(lambda node: node.right)


def swap_arguments(node, scope):
    """f(a, b) → f(b, a); a − b → b − a, a ** b → b ** a."""
    if isinstance(node, ast.Call):
        for i in range(len(node.args) - 1):
            yield lambda node, i=i: node.args.insert(i, node.args.pop(i + 1))
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Sub, ast.Div, ast.Pow, ast.MatMult)):
        yield becomes(lambda node: ast.BinOp(node.right, node.op, node.left))


def wrong_name(node, scope):
    """One variable of the function is taken for another."""
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in scope:
        for name in scope:
            if name != node.id:
                yield becomes(lambda node, name=name: ast.Name(name, ast.Load()))


def wrong_key(node, scope):
    """p["W1"] → p["W2"]."""
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, str):
        key = node.slice.value
        others = [key[:-1] + digit for digit in "1234" if digit != key[-1]] if key[-1:].isdigit() else ["mu", "logvar"]
        for other in others:
            if other != key:
                yield lambda node, other=other: setattr(node, "slice", ast.Constant(other))


def off_by_one(node, scope):
    """A bound of a slice, an index, or an axis is one too large or too small."""
    places = []
    if isinstance(node, ast.Slice):
        places = [field for field in ("lower", "upper") if getattr(node, field)]
    elif isinstance(node, ast.Subscript) and isinstance(node.slice, (ast.Name, ast.Constant, ast.BinOp)):
        places = ["slice"] * (not (isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, str)))
    elif isinstance(node, ast.keyword) and node.arg == "axis":
        places = ["value"]
    for field, way in itertools.product(places, (ast.Add, ast.Sub)):
        yield lambda node, field=field, way=way: setattr(
            node, field, ast.BinOp(getattr(node, field), way(), ast.Constant(1))
        )


def drop_call(node, scope):
    """np.exp(a) → a, and a.sum(axis=0) → a."""
    if isinstance(node, ast.Call):
        if node.args:
            yield becomes(lambda node: node.args[0])
        if isinstance(node.func, ast.Attribute) and not (
            isinstance(node.func.value, ast.Name) and node.func.value.id in ("np", "math")
        ):
            yield becomes(lambda node: node.func.value)


def drop_argument(node, scope):
    """The last argument, or one with a keyword, is forgotten."""
    if isinstance(node, ast.Call):
        if node.args:
            yield lambda node: node.args.pop()
        for i in range(len(node.keywords)):
            yield lambda node, i=i: node.keywords.pop(i)


def drop_statement(node, scope):
    """A line that changes something is forgotten."""
    if isinstance(node, (ast.AugAssign, ast.Expr, ast.If, ast.Raise)):
        yield becomes(lambda node: ast.Pass())
    if isinstance(node, ast.Assign):
        yield becomes(lambda node: ast.Expr(node.value))


def negate(node, scope):
    """A minus too many, or too few."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield becomes(lambda node: node.operand)
    elif isinstance(node, (ast.Call, ast.BinOp)):
        yield becomes(lambda node: ast.UnaryOp(ast.USub(), copy.deepcopy(node)))


def other_operator(node, scope):
    """+ for −, * for /, * for @, < for <=, += for =."""
    swaps = {ast.Add: [ast.Sub, ast.Mult], ast.Sub: [ast.Add], ast.Mult: [ast.Div, ast.Add], ast.Div: [ast.Mult]}
    swaps |= {ast.MatMult: [ast.Mult], ast.Pow: [ast.Mult], ast.FloorDiv: [ast.Div]}
    if isinstance(node, (ast.BinOp, ast.AugAssign)):
        for op in swaps.get(type(node.op), []):
            yield lambda node, op=op: setattr(node, "op", op())
    if isinstance(node, ast.AugAssign):
        yield becomes(lambda node: ast.Assign([node.target], node.value, lineno=node.lineno))
    compared = {ast.Lt: [ast.LtE, ast.Gt], ast.Gt: [ast.GtE, ast.Lt], ast.NotEq: [ast.Lt, ast.Gt, ast.Eq]}
    if isinstance(node, ast.Compare):
        for op in compared.get(type(node.ops[0]), []):
            yield lambda node, op=op: node.ops.__setitem__(0, op())


def other_function(node, scope):
    """np.exp → np.expm1, sum → max, and the like."""
    like = {"exp": ["expm1", "exp2"], "sum": ["max", "prod", "mean"], "mean": ["sum", "max"], "max": ["mean"]}
    like |= {"tanh": ["sin", "exp"], "sqrt": ["cbrt", "abs"], "log": ["log2", "log1p"], "normal": ["uniform"]}
    like |= {"standard_normal": ["standard_exponential", "random"], "permutation": ["integers"], "T": ["real"]}
    like |= {"zeros_like": ["ones_like"], "zeros": ["ones"], "float32": ["float16"], "concatenate": ["hstack"]}
    if isinstance(node, ast.Attribute):
        for name in like.get(node.attr, []):
            yield lambda node, name=name: setattr(node, "attr", name)


def other_number(node, scope):
    """A number is twice as large, or one more."""
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        for value in (2 * node.value, node.value + 1, 10 * node.value):
            if value != node.value:
                yield lambda node, value=value: setattr(node, "value", value)


OPERATORS = [drop_term, swap_arguments, wrong_name, wrong_key, off_by_one, drop_call, drop_argument, drop_statement]
OPERATORS += [negate, other_operator, other_function, other_number]


def mutated(source, name, rng):
    """(operator, source) with the function `name` changed in one place, at random; None where nothing came of it."""
    tree = ast.parse(source)
    function = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name)
    stored = [n.id for n in ast.walk(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]
    scope = sorted({argument.arg for argument in function.args.args} | set(stored))
    begin = isinstance(function.body[0], ast.Expr) and isinstance(function.body[0].value, ast.Constant)
    nodes = [node for statement in function.body[begin:] for node in ast.walk(statement)]
    ways = [[(node, way) for node in nodes for way in operator(node, scope)] for operator in OPERATORS]
    operator = rng.choice([i for i, found in enumerate(ways) if found])
    node, way = ways[operator][rng.integers(len(ways[operator]))]
    before = ast.unparse(tree)
    way(node)
    after = ast.unparse(ast.fix_missing_locations(tree))
    return None if after == before else (OPERATORS[operator].__name__, after)


# inputs that the judge does not know


def idx(rng, sizes):
    count = int(np.prod(sizes)) + int(rng.choice([0, 0, 0, 1, -1, 7]))
    begin = bytes([0, 0, 8]) if rng.random() < 0.8 else bytes(rng.integers(0, 9, 3).tolist())
    raw = begin + bytes([len(sizes)]) + b"".join(int(size).to_bytes(4, "big") for size in sizes)
    raw += rng.integers(0, 256, max(count, 0), np.uint8).tobytes()
    return raw if rng.random() < 0.8 else raw[: rng.integers(0, 16)]


def whole(rng, sizes):
    header = bytes([0, 0, 8, len(sizes)]) + b"".join(int(size).to_bytes(4, "big") for size in sizes)
    return header + rng.integers(0, 256, int(np.prod(sizes)), np.uint8).tobytes()


def random_inputs(name, rng):
    """Arguments of a function, at random: shapes, sizes and extremes."""
    L, B, D, H, J = (int(n) for n in rng.integers(1, 7, 5))
    normal, uniform = (lambda *shape: rng.normal(size=shape)), (lambda *shape: rng.uniform(size=shape))
    wide = lambda *shape: rng.normal(size=shape) * rng.choice([1, 3, 30, 1000])  # noqa: E731
    p = parameters(D, H, J, rng)
    mu, logvar, eps = normal(B, J), normal(B, J) * rng.choice([1, 3]), normal(L, B, J)
    draws = [] if rng.random() < 0.5 else [L]
    if name == "backward":
        return {"p": p, "values": solved()["ex07_vae"].forward(p, uniform(B, D), eps)[1]}
    return {
        "read_header": lambda: {"raw": idx(rng, rng.choice([0, 1, 2, 5, 300], rng.integers(1, 5)))},
        "read_images": lambda: {"raw": whole(rng, rng.integers(1, 20, 3))},
        "scale": lambda: {"images": rng.integers(0, 256, (B, D), np.uint8)},
        "dense": lambda: {"x": normal(B, D), "W": normal(D, H), "b": normal(H)},
        "dense_backward": lambda: {"d_y": normal(B, H), "x": normal(B, D), "W": normal(D, H)},
        "tanh": lambda: {"a": wide(B, D)},
        "tanh_backward": lambda: {"d_h": normal(B, D), "h": np.tanh(wide(B, D))},
        "softplus": lambda: {"a": wide(B, D)},
        "sigmoid": lambda: {"a": wide(B, D)},
        "bernoulli_log_density": lambda: {"x": uniform(B, D).round(rng.integers(0, 9)), "logits": wide(*draws, B, D)},
        "bernoulli_log_density_gradient": lambda: {"x": uniform(B, D), "logits": wide(*draws, B, D)},
        "gaussian_kl": lambda: {"mu": mu, "logvar": logvar},
        "gaussian_kl_gradient": lambda: {"mu": mu, "logvar": logvar},
        "reparameterize": lambda: {"mu": mu, "logvar": logvar, "eps": eps},
        "reparameterize_gradient": lambda: {"d_z": normal(L, B, J), "logvar": logvar, "eps": eps},
        "encode": lambda: {"p": p, "x": uniform(B, D)},
        "decode": lambda: {"p": p, "z": normal(B, J)},
        "forward": lambda: {"p": p, "x": uniform(B, D), "eps": eps},
        "adam_step": lambda: {
            **{"theta": normal(B, D), "gradient": normal(B, D) * 10.0 ** rng.integers(-8, 2)},
            **{"m": normal(B, D), "v": uniform(B, D), "t": int(rng.integers(1, 2000))},
            **{
                "learning_rate": rng.uniform(0, 0.1),
                "beta1": rng.uniform(0.5, 0.99),
                "beta2": rng.uniform(0.9, 0.9999),
            },
            **{"epsilon": 10.0 ** rng.integers(-9, 0)},
        },
        "initialize": lambda: {
            **{"pixels": int(rng.integers(300, 400)), "hidden": int(rng.integers(200, 300))},
            **{"latent": int(rng.integers(20, 40))},
        },
        "train_epoch": lambda: {
            "p": {key: array.astype(np.float32) for key, array in parameters(5, 4, 16, rng).items()},
            "images": rng.integers(0, 256, (int(rng.integers(5, 20)), 5), np.uint8),
            **{"batch_size": int(rng.integers(2, 6)), "learning_rate": rng.uniform(0.002, 0.01)},
        },
        "sample": lambda: {"p": p, "count": int(rng.integers(4000, 5000))},
        "reconstruct": lambda: {"p": p, "x": uniform(B, D)},
        "interpolate": lambda: {"p": p, "first": uniform(D), "last": uniform(D), "steps": int(rng.integers(2, 9))},
        "log_mean_exp": lambda: {"a": wide(L, B)},
        "normalized_weights": lambda: {"log_w": wide(L, B)},
        "log_weights": lambda: {"log_p_x": wide(L, B), "z": normal(L, B, J), "mu": mu, "logvar": logvar},
        "log_likelihood": lambda: {"p": p, "x": uniform(B, D), "eps": eps},
    }[name]()


def inputs(name):
    rng = np.random.default_rng(MODULES.index(module_of(name)) + 100)
    count = {"train_epoch": 6, "initialize": 4, "sample": 6, "read_header": 300}.get(name, INPUTS)
    return [Case("at random", **random_inputs(name, rng)) for _ in range(count)]


def module_of(name):
    return next(MODULES[number - 1] for number in EXERCISES if name in exercise(number).functions)


# what the judge makes of it


@contextlib.contextmanager
def quickly(seconds):
    """Raise `OutOfTime` when the time is over."""

    def over(number, frame):
        raise OutOfTime

    signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def outcomes(function, spec, cases, right=None):
    """What comes of the cases; of one that takes too long, and of those after it, None."""
    found = []
    with warnings.catch_warnings(), np.errstate(all="ignore"), contextlib.suppress(OutOfTime), quickly(SECONDS):
        warnings.simplefilter("ignore")
        with contextlib.redirect_stdout(io.StringIO()):
            for i, case in enumerate(cases):
                found.append(attempt(function, spec, case, right and right[i]))
    return found + [None] * (len(cases) - len(found))


def same(found, others):
    return all(a is not None and b is not None and alike(a, b) for a, b in zip(found, others, strict=True))


def named_source(verdict, name, task):
    """(kind, source) of the mistake that a verdict names: 'listed', 'pair' or 'operator'; two times None for none."""
    spec = task.functions[name]
    kinds = {"listed": judging.listed(task, name, spec), "pair": judging.pairs(task, name, spec)}
    for kind, candidates in (kinds | {"operator": judging.operators(task, name)}).items():
        for mistake, source in candidates:
            if mistake.what == verdict.mistake:
                return kind, source
    if verdict.mistake.startswith("they are returned in the order"):
        return "listed", None
    return None, None


def tried(module, source, name):
    """Of a changed function (does it change what it does, kind of the named mistake, is it to the point, verdict)."""
    task = exercise(MODULES.index(module) + 1)
    spec, others, cases = task.functions[name], earlier(module), inputs(name)
    solution = loaded(task.solution, module, others)
    right = outcomes(getattr(solution, name), spec, cases)
    with imported(module, source) as made:
        function = getattr(made, name)
        given = [judging.extended(case, spec, function) for case in cases]
        with judging.replaced(function, vars(solution), [one for one in task.functions if one != name]):
            found = outcomes(function, spec, given, right)
        changes = not same(found, right)
        try:
            with quickly(SECONDS):  # for the function, not for the search for its mistake
                stop = lambda: signal.setitimer(signal.ITIMER_REAL, 0)  # noqa: E731
                verdict = judge(function, name, task, others, siblings=True, ran=stop)
        except OutOfTime:
            verdict = Verdict(name, False, "does not come to an end")
    kind, wrong = named_source(verdict, name, task)
    to_the_point = False
    if kind and wrong is None:
        to_the_point = True  # right but for their order
    elif kind:
        named = getattr(loaded(wrong, module, others), name)
        to_the_point = same(found, outcomes(named, spec, cases, right))
    return changes, kind, to_the_point, verdict


def drawn(count, texts, rng):
    """`count` different mutants, (module, name, operator, source), of functions of (module, source), at random."""
    places = [(module, source, name) for module, source in texts for name in exercise(int(module[2:4])).functions]
    places = [place for place in places if defines(place[1], place[2])]
    seen, found = set(), []
    while len(found) < count:
        module, source, name = places[rng.integers(len(places))]
        mutant = mutated(source, name, rng)
        if mutant is None or mutant[1] in seen:
            continue
        seen.add(mutant[1])
        with contextlib.suppress(Exception), contextlib.redirect_stdout(io.StringIO()):
            with imported(module, mutant[1]):
                found.append((module, name, *mutant))
    return found


def defines(source, name):
    """Whether a function is written with def: one style has a lambda."""
    return any(isinstance(node, ast.FunctionDef) and node.name == name for node in ast.parse(source).body)


def table(rows, columns):
    """A Markdown table with a line for each exercise and a total."""
    print("| " + " | ".join(columns) + " |")
    print("|---" + "|---:" * (len(columns) - 1) + "|")
    for row in rows:
        print("| " + " | ".join(map(str, row)) + " |")
    print("| **all** | " + " | ".join(f"**{sum(row[i] for row in rows)}**" for i in range(1, len(columns))) + " |\n")


def counts():
    """The table of what there is: functions, listed mistakes, other styles, and what the judge says of them."""
    rows = []
    for number in EXERCISES:
        task = exercise(number)
        listed = named = styles = passing = wrong = wrong_named = 0
        for name, spec in task.functions.items():
            for mistake in spec.mistakes:
                (verdict,) = verdicts(task.module, edited(task.solution, name, mistake.changes), [name])
                listed, named = listed + 1, named + (verdict.mistake == mistake.what)
        for style, modules in STYLES.items():
            found = verdicts(task.module, modules[task.module])
            styles, passing = styles + len(found), passing + sum(verdict.passed for verdict in found)
            for name, what, *changes in WRONG[style]:
                if name in task.functions:
                    (verdict,) = verdicts(*with_mistake(style, name, changes), [name])
                    wrong, wrong_named = wrong + 1, wrong_named + (verdict.mistake == what)
        title = f"{number}. {task.title}"
        rows.append((title, len(task.functions), listed, named, styles, passing, wrong, wrong_named))
    columns = ["exercise", "functions", "listed mistakes", "named right", "functions in other styles", "pass"]
    table(rows, [*columns, "mistakes made in other styles", "named right"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--count", type=int, default=100, help="mutants of npvae's solutions, and as many of the others"
    )
    parser.add_argument(
        "--show", action="store_true", help="show every mutant that passes, or is named beside the point"
    )
    given = parser.parse_args()
    judging.SEARCH = 60.0  # a busy machine gives the same numbers
    builtins.input = lambda *_: ""
    if not given.show:
        counts()
    rng = np.random.default_rng(given.seed)
    own = [(MODULES[number - 1], exercise(number).solution) for number in EXERCISES]
    others = [(module, source) for style in STYLES.values() for module, source in style.items()]
    tally = {number: Counter() for number in EXERCISES}
    for module, name, operator, source in drawn(given.count, own, rng) + drawn(given.count, others, rng):
        changes, kind, to_the_point, verdict = tried(module, source, name)
        passed = verdict.passed
        seen = tally[int(module[2:4])]
        seen["mutants"] += 1
        seen["changed"] += changes
        seen["found"] += changes and not passed
        seen["alarm"] += not changes and not passed
        if changes and not passed:
            seen[kind or ("where" if verdict.headline.startswith("wrong") else "error")] += 1
            seen["to the point"] += to_the_point
        if given.show and (changes == passed or (kind and not to_the_point)):
            what = "PASSES" if passed else "FALSE ALARM" if not changes else "BESIDE THE POINT"
            print(f"--- {what}: {module} {name}, {operator}\n{verdict}")
            task_function = next(
                node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef) and node.name == name
            )
            print(ast.unparse(task_function), "\n", flush=True)
    keys = ["mutants", "changed", "found", "alarm", "listed", "pair", "operator", "to the point", "error", "where"]
    rows = [(f"{n}. {exercise(n).title}", *(tally[n][key] for key in keys)) for n in EXERCISES]
    columns = ["exercise", "mutants", "change what it does", "fail", "fail without a change", "named: listed"]
    table(rows, [*columns, "two listed", "one operator", "of the named, to the point", "error or shape", "element"])


if __name__ == "__main__":
    sys.exit(main())
