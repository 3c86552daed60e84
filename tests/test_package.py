"""The package as a whole: its public face, what ships with it, and what its rooms may pull in."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import setuptools

import ramify
from ramify.export.html import SCRIPTS

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "ramify"
# policies, controllers, the cache and the task generators run on a CPU in microseconds
ROOMS_WITHOUT_TORCH = ["core", "cache", "scheduling", "search", "export", "zoo"]
# only kernel bodies and the code that launches them may know triton
# the last is a kernel too: the merge of a peer, measured and never used
ROOMS_WITH_TRITON = (
    "attention/kernels/",
    "attention/backends/",
    "engine/kernels/",
    "models/kernels/",
    "bench/attention/providers/ragged_merge.py",
)


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    """Run `code` in a fresh interpreter with this one's import path."""
    setup = f"import sys; sys.path[:] = {sys.path!r}\n"
    command = [sys.executable, "-c", setup + code]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)


def test_all_equals_the_visible_names() -> None:
    """What `ramify/__init__.py` imports from its rooms, for types only or really, is `__all__`."""
    imports = [
        node
        for node in ast.walk(ast.parse((SOURCE / "__init__.py").read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ramify.")
    ]
    visible = [alias.asname or alias.name for node in imports for alias in node.names]
    assert sorted([*visible, "__version__"]) == sorted(ramify.__all__)
    assert set(dir(ramify)) >= set(ramify.__all__)


def test_nothing_else_is_visible() -> None:
    """No helper leaks: all that is bound without an underscore is public, a room, or syntax."""
    bound = {name for name in vars(ramify) if not name.startswith("_")}
    rooms = {path.name for path in SOURCE.iterdir() if path.is_dir()}
    assert bound - rooms - {"annotations", "TYPE_CHECKING"} <= set(ramify.__all__)


def test_version_is_the_project_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert ramify.__version__ == project["version"]


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = ramify.no_such_name


def test_star_import_gives_every_public_name() -> None:
    namespace: dict[str, object] = {}
    exec("from ramify import *", namespace)
    assert set(ramify.__all__) <= namespace.keys()


def test_package_data_ships(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask setuptools what a wheel would hold: the type marker, the bundled model, its problems."""
    monkeypatch.chdir(ROOT)
    distribution = setuptools.Distribution()
    distribution.parse_config_files(["pyproject.toml"])
    distribution.include_package_data = (
        False  # globs only: the manifest would write beside the source
    )
    build = distribution.get_command_obj("build_py")
    build.ensure_finalized()
    shipped = {
        Path(folder).joinpath(name).relative_to(Path("src/ramify")).as_posix()
        for _, folder, _, names in build.data_files
        for name in names
    }
    model = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert {"py.typed", "zoo/README.md", *(f"zoo/ramify-tiny/{name}" for name in model)} <= shipped
    assert {f"export/assets/{name}" for name in ("tree.css", *SCRIPTS)} <= shipped
    assert any(name.startswith("zoo/problems/") for name in shipped)
    kernels = {path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.cu")}
    assert kernels and kernels <= shipped


def test_every_module_imports_where_triton_is_absent() -> None:
    result = run_python(
        "import sys, importlib, pkgutil\n"
        "sys.modules['triton'] = None\n"
        "import ramify\n"
        "names = [m.name for m in pkgutil.walk_packages(ramify.__path__, 'ramify.')]\n"
        "skip = ('ramify.attention.kernels.', 'ramify.attention.backends.triton', "
        "'ramify.bench.attention.providers.ragged_merge', 'ramify.engine.cuda', "
        "'ramify.engine.kernels.', 'ramify.engine.device_sample', "
        "'ramify.engine.device_draws', 'ramify.engine.penalties', "
        "'ramify.models.kernels.', 'ramify.models.fused', 'ramify.models.products')\n"
        "names = [n for n in names if not n.startswith(skip) and not n.endswith('__main__')]\n"
        "assert 'ramify.attention.reference' in names, names\n"
        "for name in names: importlib.import_module(name)\n"
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("room", ROOMS_WITHOUT_TORCH)
def test_pure_rooms_do_not_import_torch(room: str) -> None:
    code = f"import ramify.{room}, sys; print([m for m in ('torch', 'triton') if m in sys.modules])"
    result = run_python(code)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "[]"


def imported_names(path: Path) -> Iterator[str]:
    """Top-level packages that a file imports anywhere, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]


def test_only_kernels_and_backends_import_triton() -> None:
    files = {path.relative_to(SOURCE).as_posix(): path for path in SOURCE.rglob("*.py")}
    assert "core/errors.py" in files
    guilty = [
        name
        for name, path in files.items()
        if not name.startswith(ROOMS_WITH_TRITON) and "triton" in imported_names(path)
    ]
    assert guilty == []


def test_core_knows_numpy_and_numba_at_most() -> None:
    """Of the standard library it may know anything but the network."""
    allowed = {"ramify", "numpy", "numba", *sys.stdlib_module_names} - {"http", "urllib", "socket"}
    for path in (SOURCE / "core").rglob("*.py"):
        assert set(imported_names(path)) <= allowed, path.name
    only_wrapper = [p.name for p in SOURCE.rglob("*.py") if "numba" in imported_names(p)]
    assert only_wrapper == ["jit.py"], "take njit from ramify.core.jit"


def test_structure_page_lists_every_file() -> None:
    """docs/structure.md has one table per room, with the files there are; `make pages` mends it."""
    page = (ROOT / "docs" / "structure.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"(?ms)^### (\w+)(.*?)(?=^##)", page))
    listed = {
        f"{room}/{name}"
        for room, text in sections.items()
        for name in re.findall(r"(?m)^\| `([^`]+\.py)` \|", text)
    }
    files = {path.relative_to(SOURCE) for path in SOURCE.rglob("*.py")}
    there = {path.as_posix() for path in files if not path.name.startswith("__")}
    assert listed == there, "run `make pages`"
