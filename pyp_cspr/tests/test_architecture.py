"""What the import contracts of pyproject.toml cannot say: files are opened in few places, importing is cheap, sizes."""

from __future__ import annotations

import ast
import importlib.util
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Dict

import pytest
from hypothesis import settings

import pyp_cspr
from pyp_cspr import engine

PACKAGE = Path(pyp_cspr.__file__).parent
ENGINE = PACKAGE / "engine"
HEAVY = ("numba", "matplotlib", "gemmi", "scipy.ndimage", "scipy.optimize", "pandas")
HOST = ("pyworkflow", "pwem", "tomo", "xmippLib")

# Lines over the guide of 400 for a module and 300 for kernels, each with its reason.
LONG_MODULES: Dict[str, str] = {}

FILE_CALLS = {"open", "read_text", "write_text", "read_bytes", "write_bytes", "memmap", "fromfile", "tofile", "save", "savez",
              "fdopen", "mkstemp", "NamedTemporaryFile", "TemporaryFile"}
FILE_CALLS_ELSEWHERE = {
    "core/_jit.py read_bytes": "the kernels' own source, whose hash names their cache",
    "core/_machine_code.py read_bytes": "the cache itself",
    "core/_machine_code.py fdopen": "the cache itself",
    "core/_machine_code.py open": "the cache itself",
    "sample/model.py read_text": "the atomic model inside scipion-em, a data file of a dependency",
    "cli/__init__.py open": "os.devnull, in place of a standard output that was closed",
}


def engine_modules():
    return sorted(path for path in ENGINE.rglob("*.py"))


def relative(path: Path) -> str:
    return path.relative_to(ENGINE).as_posix()


def run_python(code: str, **variables: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent), **variables}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_only_io_and_the_pipeline_touch_files():
    """``open`` and its relatives are called in io/ and pipeline/ alone; report/ hands its page to them."""
    found = []
    for path in engine_modules():
        name = relative(path)
        if name.startswith(("io/", "pipeline/")):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            called = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            if called in FILE_CALLS and f"{name} {called}" not in FILE_CALLS_ELSEWHERE:
                found.append(f"{name}:{node.lineno} {called}")
    assert not found, "\n".join(found)


def test_every_package_of_the_engine_has_its_place_in_the_layers():
    known = {"core", "model", "io", "refine", "reconstruct", "pipeline", "report", "sample", "cli"}
    packages = {path.parent.name for path in ENGINE.glob("*/__init__.py")}
    assert packages <= known
    modules = {path.stem for path in ENGINE.glob("*.py")}
    assert modules == {"__init__", "conventions", "errors"}


def test_the_public_names_of_the_engine_are_there():
    assert 8 <= len(engine.__all__) <= 16
    for name in engine.__all__:
        assert getattr(engine, name) is not None
        assert name in dir(engine)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = engine.nothing


@pytest.mark.timeout(120)
def test_importing_the_engine_and_its_command_loads_nothing_heavy_and_needs_no_host():
    code = (
        "import sys\n"
        f"for name in {HOST!r}: sys.modules[name] = None\n"
        "import pyp_cspr.engine, pyp_cspr.engine.cli\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])\n"
    )
    assert run_python(code).split() == ["[]"]


@pytest.mark.timeout(180)
def test_every_module_of_the_engine_imports_without_the_host_and_compiles_nothing():
    modules = [
        "pyp_cspr.engine." + relative(path)[:-3].replace("/", ".")
        for path in engine_modules()
        if path.stem not in ("__init__", "__main__")
    ]
    code = (
        "import sys, importlib\n"
        f"for name in {HOST!r}: sys.modules[name] = None\n"
        f"modules = [importlib.import_module(name) for name in {modules!r}]\n"
        "from pyp_cspr.engine.core._jit import Kernel\n"
        "kernels = [k for m in modules for k in vars(m).values() if isinstance(k, Kernel)]\n"
        "compiled = [k.__name__ for k in kernels if k.ready]\n"
        "print(len(kernels) > 3, compiled)\n"
    )
    assert run_python(code, NUMBA_DISABLE_JIT="0").split() == ["True", "[]"]


def test_kernels_make_no_arrays():
    """Then they run without numba (see ``core/_machine_code.py``); what they need to work in is given to them."""
    makers = {"empty", "zeros", "ones", "full", "arange", "array", "copy", "reshape", "ravel", "concatenate", "dot", "sort",
              "zeros_like", "empty_like", "ones_like", "astype", "sum", "where", "linspace"}
    found = []
    for path in sorted(ENGINE.rglob("*_kernels.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if not isinstance(node, ast.FunctionDef) or not node.decorator_list:
                continue
            for part in ast.walk(node):
                if isinstance(part, ast.Call) and isinstance(part.func, ast.Attribute) and part.func.attr in makers:
                    found.append(f"{relative(path)}:{part.lineno} {node.name}: {part.func.attr}")
    assert not found, "\n".join(found)


@pytest.mark.timeout(120)
def test_benchmarks_and_makers_of_pages_find_what_they_import():
    """They run by hand, and rarely: a name that has moved must show here."""
    folders = [PACKAGE.parent / name for name in ("benchmarks", "docs")]
    if not folders[0].is_dir():
        pytest.skip("installed without the repository")
    wanted = {
        (node.module, name.name) for folder in folders for path in folder.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pyp_cspr.engine") for name in node.names
    }
    assert len(wanted) > 30
    for module, name in sorted(wanted):
        assert hasattr(importlib.import_module(module), name) or importlib.util.find_spec(f"{module}.{name}"), (module, name)


def test_tests_are_seeded_and_their_processes_have_a_time_limit():
    """Hypothesis draws the same cases every time, and no process is waited for without end."""
    assert settings().derandomize
    found = []
    for path in sorted((PACKAGE / "tests").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            called, of = node.func.attr, getattr(node.func.value, "id", "")
            limited = any(word.arg in ("timeout", None) for word in node.keywords)
            if (of == "subprocess" and called in ("run", "call", "check_call", "check_output")) or called == "communicate":
                waits = not limited
            else:
                waits = called == "wait" and not node.args and not limited
            if waits or (called == "default_rng" and not node.args):
                found.append(f"{path.relative_to(PACKAGE)}:{node.lineno} {called}")
    assert not found, "\n".join(found)


@pytest.mark.timeout(120)
def test_tests_of_the_host_are_skipped_with_a_reason_where_it_is_missing():
    folders = [PACKAGE / "tests" / name for name in ("protocols", "viewers", "wizards")]
    code = (
        "import importlib.util, sys\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *rest: None if name in ('pwem', 'tomo') else find(name, *rest)\n"
        "import pytest\n"
        f"status = pytest.main(['-q', '-p', 'no:cacheprovider', *{[str(folder) for folder in folders]!r}])\n"
        "print('status', int(status))\n"
    )
    lines = run_python(code).splitlines()
    files = sum(len(list(folder.glob("test_*.py"))) for folder in folders)
    reason = "Scipion's packages pwem and tomo are not installed"
    skips = [int(line.split("[")[1].split("]")[0]) for line in lines if line.startswith("SKIPPED") and line.endswith(reason)]
    assert sum(skips) == files > 10
    assert lines[-1] == f"status {int(pytest.ExitCode.NO_TESTS_COLLECTED)}"


def test_modules_keep_to_the_size_guide():
    long = []
    for path in engine_modules():
        lines = len(path.read_text(encoding="utf-8").splitlines())
        limit = 300 if path.stem.endswith("_kernels") else 400
        if lines > limit and relative(path) not in LONG_MODULES:
            long.append(f"{relative(path)}: {lines} lines, guide {limit}")
    assert not long, "\n".join(long)


def test_every_public_function_of_the_engine_says_what_it_does():
    silent = []
    for path in engine_modules():
        # The docstring of a command's module is its help, and its functions are all alike; kernels have readable callers.
        if path.parent.name == "cli" or path.stem.endswith("_kernels"):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if ast.get_docstring(tree) is None:
            silent.append(relative(path))
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                if ast.get_docstring(node) is None:
                    silent.append(f"{relative(path)}:{node.lineno} {node.name}")
    assert not silent, "\n".join(silent)


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_wheel_holds_every_file(tmp_path):
    """What ``pip install .`` installs: all modules, the host's files, both entry points."""
    root = PACKAGE.parent
    if not (root / "setup.py").exists():
        pytest.skip("not a checkout")
    pytest.importorskip("wheel")
    source = tmp_path / "source"
    listing = ["git", "ls-files"]
    tracked = subprocess.run(listing, cwd=root, capture_output=True, text=True, timeout=60, check=False)
    if tracked.returncode:
        pytest.skip("not a git checkout")
    for name in tracked.stdout.splitlines():
        target = source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((root / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir"]
    command += [str(tmp_path), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        names = set(wheel.namelist())
        entry = next(wheel.read(name).decode() for name in names if name.endswith("entry_points.txt"))
    wanted = [name for name in tracked.stdout.splitlines() if name.startswith("pyp_cspr/")]
    missing = [name for name in wanted if name not in names and name.endswith((".py", ".conf", ".png", ".html", ".json"))]
    assert not missing, missing
    assert "pyp_cspr = pyp_cspr" in entry
    assert "cspr = pyp_cspr.engine.cli:command" in entry
