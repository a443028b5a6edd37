"""Checks that knowledge runs one way between the packages: reads every import statement, runs nothing.

    python tools/check_imports.py [ROOT]

Prints each violation as ``file:line: reason`` and exits with 1 if there was one. What may import what is
the table :data:`MAY_IMPORT`; what the engine must do without is :data:`ENGINE_FORBIDDEN`.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

#: Where each package stands, from the root of the repository.
PACKAGES = {
    "msdm_engine": Path("engine/msdm_engine"),
    "msdm_export": Path("export/msdm_export"),
    "msdm_calibration": Path("calibration/msdm_calibration"),
    "msdm_train": Path("msdm_train/msdm_train"),
}

#: Which of the other packages each package may import.
MAY_IMPORT: dict[str, frozenset[str]] = {
    "msdm_engine": frozenset(),
    "msdm_train": frozenset({"msdm_engine"}),
    "msdm_export": frozenset({"msdm_engine", "msdm_train"}),
    "msdm_calibration": frozenset({"msdm_engine"}),
}

#: What the engine runs without, in production: an install of `msdm[cpu]` has none of them.
ENGINE_FORBIDDEN = frozenset({"torch", "onnx", "transformers", "scipy", "skimage", "safetensors"})

#: Runtimes of graphs and devices -> the one room of the engine that names them, so that the rest runs on any of them.
RUNTIME_ROOMS = {
    **dict.fromkeys(("onnxruntime", "openvino", "tensorrt", "tensorrt_rtx"), "backends"),
    "cuda": "devices",
}

#: Folders outside the packages, each of which may import all packages, and itself only where True.
OTHER_ROOTS = {"tests": False, "benchmarks": True, "tools": False}


def imports_of(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and dotted name of each absolute import, at any depth, ``import_module("x")`` included.

    Relative imports stay within their package and are left out.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            if node.level == 0 and node.module is not None:
                yield node.lineno, node.module
        elif isinstance(node, ast.Call) and node.args:
            function, argument = node.func, node.args[0]
            called = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", None)
            if called in ("import_module", "__import__") and isinstance(argument, ast.Constant):
                name = str(argument.value)
                if not name.startswith("."):
                    yield node.lineno, name


def reason_against(importer: str, within: Path, imported: str) -> str | None:
    """Why ``importer`` may not import ``imported``, or None if it may.

    Args:
        importer: a package of :data:`PACKAGES`, or a folder of :data:`OTHER_ROOTS`.
        within: path of the importing file below that package or folder.
        imported: the first part of the imported module's name.
    """
    if imported in ("tests", "benchmarks") and not (imported == importer and OTHER_ROOTS[importer]):
        return f"{importer} imports {imported}; nothing imports tests or benchmarks"
    if importer not in PACKAGES:
        return None
    if imported in PACKAGES and imported != importer and imported not in MAY_IMPORT[importer]:
        legal = ", ".join(sorted(MAY_IMPORT[importer])) or "none of the other packages"
        return f"{importer} imports {imported}; it may import {legal}"
    if importer == "msdm_engine" and imported in ENGINE_FORBIDDEN:
        return f"msdm_engine imports {imported}; the engine runs without {', '.join(sorted(ENGINE_FORBIDDEN))}"
    room = RUNTIME_ROOMS.get(imported)
    if importer == "msdm_engine" and room is not None and within.parts[0] != room:
        return f"{imported} is imported outside msdm_engine/{room}; go through a {room[:-1]}"
    return None


def violations_in(root: Path) -> Iterator[str]:
    """Each violation below ``root`` as ``file:line: reason``, files in alphabetical order."""
    for importer, folder in {**PACKAGES, **{name: Path(name) for name in OTHER_ROOTS}}.items():
        if importer in PACKAGES and not (root / folder).is_dir():
            yield f"{folder.as_posix()}:1: the package {importer} is missing, so nothing could be checked"
        for path in sorted((root / folder).rglob("*.py")):
            shown = path.relative_to(root).as_posix()
            try:
                tree = ast.parse(path.read_bytes(), filename=shown)
            except SyntaxError as error:
                yield f"{shown}:{error.lineno}: cannot be parsed: {error.msg}"
                continue
            for line, module in imports_of(tree):
                reason = reason_against(importer, path.relative_to(root / folder), module.split(".")[0])
                if reason is not None:
                    yield f"{shown}:{line}: {reason}"


def main(arguments: list[str]) -> int:
    if len(arguments) > 1:
        print("usage: check_imports.py [ROOT]", file=sys.stderr)
        return 2
    root = Path(arguments[0]) if arguments else Path(__file__).resolve().parent.parent
    violations = list(violations_in(root))
    for violation in violations:
        print(violation)
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
