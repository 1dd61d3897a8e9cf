"""The rules that keep the three packages apart and the code safe, checked on the source itself."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from fedsense_core.fingerprint import PACKAGES, TOOLS, travelling_files

ROOT = Path(__file__).parent.parent
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
SCRIPTS = sorted(path for folder in ("docs", "tests") for path in (ROOT / folder).rglob("*.py"))
OTHER_TEXTS = sorted(
    path
    for pattern in ("*.md", "*.toml", "docs/**/*.*", ".ci/*", ".github/**/*.yml", "fedsense_core/**/*.toml")
    for path in ROOT.glob(pattern)
    if path.suffix in (".md", ".toml", ".sh", ".yml", "") and path.is_file()
)
FORBIDDEN_NEIGHBOURS = {
    "server_app": {"client_app"},
    "client_app": {"server_app"},
    "fedsense_core": {"server_app", "client_app"},
}
FRONT_DOOR = ROOT / "fedsense_core" / "__init__.py"
"""Hands `run` and `evaluate` to notebooks."""
TOOLS_IN_TEXT = re.compile(re.escape(".".join(TOOLS.parts)) + r"|from fedsense_core import [^\n]*\btools\b")
MAY_KNOW_FLOWER = (
    *("server_app/", "client_app/", "fedsense_core/protocol/messages.py"),
    *("fedsense_core/tools/runner/", "fedsense_core/tools/app_bundle/", "fedsense_core/tools/deployment/"),
    "fedsense_core/tools/health/",
)
LONGEST_FILE = 400
PICKLERS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
FORBIDDEN_CALLS = {"eval", "exec", "torch.save", "os.system"}
NEEDED_VALUES = {"allow_pickle": "False", "shell": "False"}
GLOBAL_RANDOMNESS = re.compile(r"^(random|np\.random|numpy\.random)\.(?!(default_rng|Generator)\b)")
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:work|root|home/\w+|mnt|Users)/")
EMPTY_NAMES = {"utils", "util", "helpers", "helper", "manager", "base", "common", "misc"}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def location(path: Path, node: ast.stmt | ast.expr | ast.excepthandler | None = None) -> str:
    return path.relative_to(ROOT).as_posix() + (f":{node.lineno}" if node else "")


def imported(path: Path) -> Iterator[tuple[str, str]]:
    """Yield (where, first part of the name) of everything that a file imports, wherever in the
    file."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((location(path, node), alias.name.split(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield location(path, node), (node.module or "").split(".")[0] if node.level == 0 else "a relative import"


def calls(path: Path) -> Iterator[tuple[str, str, dict[str, str]]]:
    """Yield (where, name, keywords) of every call."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call):
            keywords = {keyword.arg or "**": ast.unparse(keyword.value) for keyword in node.keywords}
            yield location(path, node), ast.unparse(node.func), keywords


def test_there_is_something_to_check() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in MODULES} == set(PACKAGES)
    assert ROOT / "README.md" in OTHER_TEXTS
    assert SCRIPTS


def test_imports_point_from_the_apps_to_the_core_alone() -> None:
    wrong = []
    for path in MODULES:
        forbidden = FORBIDDEN_NEIGHBOURS[path.relative_to(ROOT).parts[0]] | {"a relative import"}
        wrong += [(where, name) for where, name in imported(path) if name in forbidden]
    assert wrong == []


def test_nothing_that_travels_knows_the_tools_but_the_lazy_python_api() -> None:
    others = set(travelling_files(ROOT)) - {FRONT_DOOR}
    assert ROOT / "server_app" / "app.py" in others
    assert [location(path) for path in others if TOOLS_IN_TEXT.search(path.read_text(encoding="utf-8"))] == []
    front = tree(FRONT_DOOR)
    eager = [node for node in front.body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert [ast.unparse(node) for node in eager if TOOLS_IN_TEXT.search(ast.unparse(node))] == []


def test_only_the_apps_the_message_module_and_what_starts_them_know_flower() -> None:
    others = [path for path in MODULES if not location(path).startswith(MAY_KNOW_FLOWER)]
    assert [where for path in others for where, name in imported(path) if name == "flwr"] == []


def test_no_file_is_longer_than_a_subject() -> None:
    lengths = {location(path): len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES + SCRIPTS}
    assert {name: lines for name, lines in lengths.items() if lines > LONGEST_FILE} == {}


def test_every_module_says_what_it_is_and_has_a_name_that_says_something() -> None:
    assert [location(path) for path in MODULES if len(ast.get_docstring(tree(path)) or "") < 10] == []
    assert [location(path) for path in MODULES + SCRIPTS if path.stem in EMPTY_NAMES] == []


def test_nothing_unpickles_and_nothing_is_evaluated() -> None:
    wrong = [found for path in MODULES for found in imported(path) if found[1] in PICKLERS]
    for path in MODULES:
        for where, name, keywords in calls(path):
            unsafe = name == "torch.load" and keywords.get("weights_only") != "True"
            unsafe |= any(keywords.get(key, value) != value for key, value in NEEDED_VALUES.items())
            if unsafe or name in FORBIDDEN_CALLS:
                wrong.append((where, name))
    assert wrong == []


def test_random_numbers_come_from_generators_that_are_passed_in() -> None:
    assert [found for path in MODULES for found in imported(path) if found[1] == "random"] == []
    assert [(where, name) for path in MODULES for where, name, _ in calls(path) if GLOBAL_RANDOMNESS.match(name)] == []


def test_no_error_is_swallowed_unseen() -> None:
    wrong = []
    for path in MODULES:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ExceptHandler) and all(isinstance(line, ast.Pass) for line in node.body):
                wrong.append(location(path, node))
    assert wrong == []


def test_no_path_of_a_developers_machine() -> None:
    texts = [path for path in MODULES + SCRIPTS + OTHER_TEXTS if path != Path(__file__)]
    found = {location(path): MACHINE_PATH.search(path.read_text(encoding="utf-8")) for path in texts}
    assert {name: match[0] for name, match in found.items() if match} == {}
