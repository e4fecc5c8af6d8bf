"""What no room may do, for bytes of strangers come everywhere: unpickle, evaluate, run a shell."""

import ast

from tree import ROOT, tracked

ROOMS = {"engine", "server", "client"}
FORBIDDEN = {"pickle", "marshal", "shelve", "dill", "cloudpickle"}
CALLS = {"eval", "exec", "compile", "__import__"}


def test_nothing_is_unpickled_evaluated_or_given_to_a_shell() -> None:
    found = []
    for path in tracked():
        inner = path.relative_to(ROOT)
        if path.suffix != ".py" or inner.parts[0] not in ROOMS:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if bad := forbidden(node):
                found.append(f"{inner}:{getattr(node, 'lineno', 0)}: {bad}")
    assert not found


def forbidden(node: ast.AST) -> set[str]:
    """What of a node must not be."""
    if isinstance(node, ast.Import):
        return {one.name.partition(".")[0] for one in node.names} & FORBIDDEN
    if isinstance(node, ast.ImportFrom):
        return {(node.module or "").partition(".")[0]} & FORBIDDEN
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return {node.func.id} & CALLS
    if isinstance(node, ast.keyword) and node.arg == "shell":
        return {"shell"}
    return set()
