"""Python as text: functions emptied, edited, mutated by one operator, and run."""

import ast
import copy
import itertools
import sys
import types

TEXT = "npvae's solution"  # what a traceback calls the file


def emptied(source):
    """`source` with the body of every function replaced by `raise NotImplementedError`; docstrings stay."""
    lines, kept, last = source.splitlines(), [], 0
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef):
            docstring = node.body[0]
            kept += [*lines[last : docstring.end_lineno], "    raise NotImplementedError"]
            last = node.end_lineno
    return "\n".join([*kept, *lines[last:]]) + "\n"


def function_source(source, name):
    """The text of one function."""
    node = next(node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef) and node.name == name)
    return "\n".join(source.splitlines()[node.lineno - 1 : node.end_lineno])


def edited(source, name, changes):
    """`source` with pieces of one function replaced, each (old, new), all at once.

    None where a piece is not there exactly once, below the docstring, or two overlap.
    """
    function = function_source(source, name)
    signature, docstring, body = function.split('"""', 2)
    if any(body.count(old) != 1 for old, _ in changes):
        return None
    places = sorted((body.index(old), old, new) for old, new in changes)
    if any(start + len(old) > after for (start, old, _), (after, *_) in itertools.pairwise(places)):
        return None
    for start, old, new in reversed(places):
        body = body[:start] + new + body[start + len(old) :]
    return source.replace(function, f'{signature}"""{docstring}"""{body}')


def loaded(source, module, files=()):
    """The module that `source` makes, with the `files`, other modules by name, in the place of what it would import."""
    made = types.ModuleType(module)
    made.__file__ = TEXT
    before = {name: sys.modules.get(name) for name in files}
    sys.modules.update(files)
    try:
        exec(compile(source, TEXT, "exec"), made.__dict__)
    finally:
        for name, old in before.items():
            if old is None:
                del sys.modules[name]
            else:
                sys.modules[name] = old
    return made


SWAPPED = {
    ast.Add: [ast.Sub],
    ast.Sub: [ast.Add],
    ast.Mult: [ast.Div],
    ast.Div: [ast.Mult],
    ast.Pow: [ast.Mult],
    ast.Lt: [ast.LtE, ast.Gt],
    ast.Gt: [ast.GtE, ast.Lt],
    ast.NotEq: [ast.Eq],
    ast.Eq: [ast.NotEq],
    ast.Or: [ast.And],
    ast.And: [ast.Or],
}
RENAMED = {
    "sum": "mean",
    "mean": "sum",
    "max": "min",
    "maximum": "minimum",
    "exp": "log",
    "log": "exp",
    "zeros": "ones",
}
RENAMED |= {"standard_normal": "random", "float32": "uint8", "big": "little", "log1p": "log", "sqrt": "square"}


def mutants(source, name):
    """The functions that differ from a given one in a single operator, number or name: (what was changed, source).

    What was changed is told as two pieces of Python, before and after.
    """
    tree = ast.parse(source)
    place = next(i for i, node in enumerate(tree.body) if isinstance(node, ast.FunctionDef) and node.name == name)
    body = tree.body[place].body[1:]  # without the docstring
    for i, node in enumerate(node for statement in body for node in ast.walk(statement)):
        for k in itertools.count():
            changed = copy.deepcopy(tree)
            statements = changed.body[place].body[1:]
            target = [node for statement in statements for node in ast.walk(statement)][i]
            shown = _smallest(statements, target)
            before = ast.unparse(shown)
            if not _mutate(target, k):
                break
            after = ast.unparse(shown)
            if after != before and not any(isinstance(part, ast.Raise) for part in (node, shown)):
                yield (before, after), ast.unparse(changed)


def _smallest(statements, target):
    """The smallest expression that has the target in it as a part, or the target itself."""
    nodes = (node for statement in statements for node in ast.walk(statement) if isinstance(node, ast.expr))
    around = [node for node in nodes if node is not target and any(part is target for part in ast.walk(node))]
    return min(around, key=lambda node: len(ast.unparse(node)), default=target)


def _mutate(node, k):
    """Change a node in its k-th way; whether there is one."""
    if isinstance(node, (ast.BinOp, ast.BoolOp)):
        options = SWAPPED.get(type(node.op), [])
        ways = [("op", option()) for option in options]
        ways += [("self", node.left), ("self", node.right)] if isinstance(node, ast.BinOp) else []
    elif isinstance(node, ast.UnaryOp):
        ways = [("self", node.operand)]
    elif isinstance(node, ast.Compare):
        ways = [("ops", [option()]) for option in SWAPPED.get(type(node.ops[0]), [])]
    elif isinstance(node, ast.Constant) and isinstance(node.value, (int, float)) and not isinstance(node.value, bool):
        ways = [("value", value) for value in (node.value + 1, node.value - 1, 2 * node.value) if value != node.value]
    elif isinstance(node, ast.Attribute):
        ways = [("attr", RENAMED[node.attr])] if node.attr in RENAMED else []
        ways += [("self", node.value)] if node.attr == "T" else []
    else:
        ways = []
    if k >= len(ways):
        return False
    attribute, value = ways[k]
    if attribute == "self":
        node.__class__, node.__dict__ = value.__class__, dict(value.__dict__)
    else:
        setattr(node, attribute, value)
    return True
