"""The shape of the package: imports point one way, files and functions are small, families name their networks."""

import ast
from pathlib import Path

import pytest


PACKAGE = Path(__file__).parents[1] / "diffusers_progdistill"
FILES = sorted(PACKAGE.rglob("*.py"))
# Each layer may import those before it, and none after it. What lies in the package's own folder comes first.
LAYERS = ["", "processes", "schedulers", "denoisers", "pipelines", "data", "families", "objectives", "evaluation"]
LAYERS += ["hub", "training", "commands"]
# Signatures that are diffusers', and what a person may give a public function by name.
WIDE = {"ProgressiveDistillationScheduler", "ProgressiveDistillationPipeline", "save_pipeline"}


def list_functions(tree):
    """Functions with the name of their class, if they have one."""
    for node in ast.walk(tree):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef):
                yield (node.name if isinstance(node, ast.ClassDef) else child.name), child


def list_imports(path):
    """The modules of the package that a file imports, as paths below it."""
    place = path.relative_to(PACKAGE).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = place[: len(place) - node.level + 1]
            module = [*base, *(node.module.split(".") if node.module else [])]
            yield from ([*module, alias.name] for alias in node.names) if not node.module else [module]


def layer_of(parts):
    return parts[0] if len(parts) > 1 or (parts and (PACKAGE / parts[0]).is_dir()) else ""


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_point_one_way(path):
    own = layer_of(path.relative_to(PACKAGE).parts)
    if path.name == "__init__.py" and own == "":
        return
    for module in list_imports(path):
        other = layer_of(module)
        assert LAYERS.index(other) <= LAYERS.index(own), f"{path.name} imports {'.'.join(module)}"


def test_no_file_imports_itself_by_way_of_others():
    graph = {}
    for path in FILES:
        name = path.relative_to(PACKAGE).with_suffix("").parts
        name = name[:-1] if name[-1] == "__init__" else name
        # A package's `__init__` is loaded before its modules.
        graph[name] = {tuple(m) for m in list_imports(path)} | ({name[:-1]} if len(name) > 1 else set())
    seen, path = set(), []

    def visit(name):
        if name in path:
            loop = path[path.index(name) :]
            # A package's `__init__` may name what its modules hold.
            return [] if any(all(n[: len(p)] == p for n in loop) for p in loop) else [loop]
        if name in seen or name not in graph:
            return []
        path.append(name)
        found = [loop for other in sorted(graph[name]) for loop in visit(other)]
        path.pop()
        seen.add(name)
        return found

    assert [loop for name in sorted(graph) for loop in visit(name)] == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_files_and_functions_are_small(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    for owner, function in list_functions(ast.parse(text)):
        arguments = function.args
        names = [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
        names = [name for name in names if name not in ("self", "cls")]
        assert len(names) <= 6 or owner in WIDE, f"{function.name} has {len(names)} parameters"


def test_only_families_and_what_is_public_name_a_network():
    allowed = {"families", "denoisers", "pipelines"}
    named = []
    for path in FILES:
        if layer_of(path.relative_to(PACKAGE).parts) not in allowed:
            nodes = list(ast.walk(ast.parse(path.read_text())))
            names = {node.id for node in nodes if isinstance(node, ast.Name)}
            if "UNet2DModel" in names or any(isinstance(n, ast.Attribute) and n.attr == "unet" for n in nodes):
                named.append(path.relative_to(PACKAGE).as_posix())
    assert named == []
