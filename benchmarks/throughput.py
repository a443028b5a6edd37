"""``msdm-engine bench`` on the reference bundle: ``python -m benchmarks.throughput [--quick] [...]``.

Takes the command's options; writes ``benchmarks/results/throughput.json``.
"""

from __future__ import annotations

import sys
from pathlib import Path

from msdm_engine.cli import main as engine

RESULT = Path(__file__).parent / "results" / "throughput.json"

if __name__ == "__main__":
    engine(["bench", "--out", str(RESULT), *sys.argv[1:]])
