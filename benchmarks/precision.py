"""The parity ladder of a bundle in numbers: ``python -m benchmarks.precision [BUNDLE] [--data PACK]``.

Adds FP16 and BF16 graphs to a copy of the bundle (default: the reference bundle), climbs the ladder, says what ONNX
Runtime's CPU executes in half, writes ``benchmarks/results/precision.json`` and the tables of ``docs/precision.md``
between their markers. Nothing is written if a rung fails, and the exit code says so.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
import onnx
from benchmarks.timer import environment, write_json

from msdm_engine.bundle.reader import Bundle, reference_bundle
from msdm_export.ladder.executed import executed_in_half
from msdm_export.ladder.report import failures, table
from msdm_export.ladder.verify import verify_bundle
from msdm_export.precision.formats import FORMATS
from msdm_export.precision.variants import add_precision

ROOT = Path(__file__).parents[1]
RESULT, PAGE = ROOT / "benchmarks" / "results" / "precision.json", ROOT / "docs" / "precision.md"
PATH = click.Path(path_type=Path)


def measure(bundle: Path, pack: Path | None, steps: int) -> dict[str, Any]:
    """Everything that the JSON holds, except the environment."""
    original = Bundle.open(bundle)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "bundle"
        shutil.copytree(bundle, copy)
        for precision in FORMATS:
            click.echo(f"adding {precision}", err=True)
            add_precision(copy, precision, pack=pack)
        document = verify_bundle(copy, pack=pack, steps=steps, report=lambda text: click.echo(text, err=True))
        opened = Bundle.open(copy)
    document["bundle"] = {"name": original.manifest.name, "sha256": original.sha256}
    document["graphs"] = {
        name: {
            precision: {
                "opset": variant.opset,
                "size_bytes": opened.manifest.files[variant.file].size,
                "float32_size_bytes": opened.manifest.files[spec.file].size,
                "nodes": variant.details["nodes"],
                "float32": [
                    {"rule": entry["rule"], "reason": entry["reason"], "nodes": len(entry["nodes"])}
                    for entry in variant.details["float32"]
                ],
            }
            for precision, variant in spec.variants.items()
        }
        for name, spec in opened.manifest.graphs.items()
    }
    document["onnxruntime_cpu_executes"] = {
        name: executed_in_half(onnx.load_from_string(opened.contents[spec.file]))
        for name, spec in opened.in_precision("fp16").items()
    }
    return document


def exceptions_table(document: dict[str, Any]) -> list[str]:
    """Markdown: what stays float32 in the FP16 graphs."""
    rows = ["| graph | nodes in float32 | rule | why |", "|---|---|---|---|"]
    for graph, variants in document["graphs"].items():
        for entry in variants["fp16"]["float32"]:
            total = variants["fp16"]["nodes"]["floating"]
            rows.append(f"| {graph} | {entry['nodes']} of {total} | {entry['rule']} | {entry['reason']} |")
    return rows


def levels_table(document: dict[str, Any]) -> list[str]:
    """Markdown: relative L2 of the denoised estimate by noise level."""
    rungs = {name: rung for name, rung in document["rungs"].items() if "graphs" in rung}
    rows = ["| noise level | " + " | ".join(rungs) + " |", "|---" * (len(rungs) + 1) + "|"]
    by_level = [rung["denoised_relative_l2_by_noise_level"] for rung in rungs.values()]
    for level in by_level[0]:
        rows.append(f"| {level} | " + " | ".join(f"{levels[level]:.2g}" for levels in by_level) + " |")
    return rows


def executed_table(document: dict[str, Any]) -> list[str]:
    """Markdown: what runs in half on the CPU."""
    rows = ["| graph | nodes in float16 | nodes in float32 | casts |", "|---|---|---|---|"]
    for graph, found in document["onnxruntime_cpu_executes"].items():
        cells = []
        for kind in ("float16", "float32"):
            most = sorted(found[kind].items(), key=lambda item: -item[1])[:4]
            named = ", ".join(f"{count} {op}" for op, count in most)
            cells.append(f"{sum(found[kind].values())}" + (f" ({named})" if named else ""))
        rows.append(f"| {graph} | {cells[0]} | {cells[1]} | {found['casts']} |")
    return rows


def with_tables(page: str, tables: dict[str, list[str]]) -> str:
    """The page with each table between its markers ``<!-- NAME -->`` and ``<!-- /NAME -->`` replaced."""
    for name, rows in tables.items():
        start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        before, found, rest = page.partition(start)
        _, closed, after = rest.partition(end)
        if not (found and closed):
            raise SystemExit(f"{PAGE} lacks the markers of the table '{name}'")
        page = before + start + "\n" + "\n".join(rows) + "\n" + end + after
    return page


@click.command()
@click.argument("bundle", type=PATH, required=False)
@click.option("--data", "pack", type=PATH, help="packed data set: conditions from its val masks")
@click.option("--steps", type=int, default=6, show_default=True)
def main(bundle: Path | None, pack: Path | None, steps: int) -> None:
    """Measure, then write JSON and page."""
    document = measure(bundle or reference_bundle(), pack, steps)
    failed = list(failures(document))
    if failed:
        sys.exit("\n".join(failed))
    document["environment"] = environment("numpy", "onnx", "onnxruntime", "torch")
    tables = {
        "ladder": list(table(document)),
        "exceptions": exceptions_table(document),
        "levels": levels_table(document),
        "executed": executed_table(document),
    }
    page = with_tables(PAGE.read_text(), tables)
    write_json(RESULT, document)
    PAGE.write_text(page)
    click.echo("\n".join(tables["ladder"]))


if __name__ == "__main__":
    main()
