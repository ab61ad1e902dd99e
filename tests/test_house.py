"""Tests the structure of the package: imports, packages, and forbidden contents of files."""

import ast
import importlib.metadata
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "tf_metalstm"
CLIENT_MAY_IMPORT = {"PIL", "numpy", "tensorflow"}
CLIENTS_WITH_MORE = {
    "grpc_client.py": {"grpc", "tensorflow_serving"},
    "folders.py": {"tqdm"},  # optional
}
# Modules that name the extra they need in their first lines.
NEEDS_EXTRA = {"celo_weights.py": "celo", "classifier.py": "sklearn", "demo.py": "demo"}


def lint_imports(folder):
    code = "import sys, importlinter.cli as cli; sys.exit(cli.lint_imports(no_cache=True))"
    return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)


def imported_names(file):
    """Returns the top-level names of all absolute imports of a file, also inside functions."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.partition(".")[0]


def third_party(files):
    names = {name for file in files for name in imported_names(file)}
    return names - sys.stdlib_module_names - {"tf_metalstm"}


def test_import_contracts_hold():
    result = lint_imports(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("module", "imported", "contract"),
    [
        ("rules/intruder.py", "tf_metalstm.learners", "Imports go down only"),
        ("episode.py", "tf_metalstm.methods", "Imports go down only"),
        ("newcomer.py", "tf_metalstm.episode", "Imports go down only"),
        ("data/intruder.py", "keras", "Data knows no Keras"),
        ("methods/intruder.py", "tests.conftest", "The package needs nothing that stays"),
    ],
)
def test_import_contracts_can_fail(module, imported, contract, tmp_path):
    shutil.copytree(PACKAGE, tmp_path / "tf_metalstm")
    shutil.copy(ROOT / "setup.cfg", tmp_path)
    with (tmp_path / "tf_metalstm" / module).open("a") as file:
        file.write(f"\nimport {imported}\n")
    result = lint_imports(tmp_path)
    assert result.returncode == 1
    assert re.search(f"{contract}.* BROKEN", result.stdout), result.stdout + result.stderr


@pytest.mark.parametrize("folder", ["flags", "export", "tests", "benchmarks"])
def test_folders_beside_the_package_are_no_packages(folder):
    assert not list((ROOT / folder).rglob("__init__.py"))


def test_flags_are_flagfiles_only():
    files = [file for file in (ROOT / "flags").rglob("*") if file.is_file()]
    assert files
    assert {file.suffix for file in files} == {".flags"}


def test_client_imports_nothing_of_ours():
    files = list((ROOT / "export").rglob("*.py"))
    assert files
    for file in files:
        # Files of the same folder, and of the folder above, which serving/ needs too.
        beside_it = {f.stem for f in (*file.parent.glob("*.py"), *(ROOT / "export").glob("*.py"))}
        names = set(imported_names(file)) - sys.stdlib_module_names - beside_it
        assert names <= CLIENT_MAY_IMPORT | CLIENTS_WITH_MORE.get(file.name, set()), file


def test_functions_are_traced_in_one_way():
    """`graphs.py` is the way; a file that is in `export`, too, cannot import it."""
    shared = {file.name for file in (ROOT / "export").glob("*.py")}
    files = [file for file in PACKAGE.rglob("*.py") if file.name not in {"graphs.py", *shared}]
    found = {
        str(file)
        for file in files
        if re.search(r"\btf\.function\(|@tf\.function", file.read_text("utf-8"))
    }
    assert len(files) > 100
    assert found == set()


def test_imports_are_declared_dependencies():
    # Packages that only matplotlib or an extra installs could be missing later.
    declared = {None: set()}
    for requirement in importlib.metadata.requires("tf_metalstm"):
        extra = re.search(r'extra == "(\w+)"', requirement)
        name = re.match(r"[\w.-]+", requirement)[0].lower()
        declared.setdefault(extra and extra[1], set()).add(name)
    distributions = importlib.metadata.packages_distributions()
    for file in PACKAGE.rglob("*.py"):
        allowed = declared[None] | declared.get(NEEDS_EXTRA.get(file.name), set())
        for name in third_party([file]):
            found = {distribution.lower() for distribution in distributions.get(name, [])}
            assert allowed & found, f"{file}: {name}"


def test_no_file_names_a_path_of_one_machine():
    folders = ["tf_metalstm", "tests", "flags", "export", "docs", "tools", ".ci"]
    files = [*ROOT.iterdir(), *(f for folder in folders for f in (ROOT / folder).rglob("*"))]
    # In a second working tree of a clone, .git is a file that names the clone.
    files = [f for f in files if f.is_file() and not {"__pycache__", ".git"} & {*f.parts}]
    assert len(files) > 100
    path = re.compile(r"(?<![\w.~-])/(?:work|root|tmp|home/\w+|Users/\w+)/")
    for file in files:
        found = path.search(file.read_bytes().decode("utf-8", errors="ignore"))
        assert not found, f"{file.relative_to(ROOT)} names a path of one machine: {found[0]}"
