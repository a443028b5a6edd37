"""Sets made on a backend in memory."""

from __future__ import annotations

from typing import Any

import pytest

import msdm_engine.engine
from msdm_engine import Bundle


@pytest.fixture
def backends(monkeypatch: pytest.MonkeyPatch, fake_backend: Any) -> list[Any]:
    """Every backend that was opened; all are new ones of the fake backend's class, which ``prepare`` may change."""
    opened: list[Any] = []

    def open_backend(name: str, bundle: Bundle, *, threads: int, parallel: int, precision: str) -> Any:
        backend = type(fake_backend)()
        backend.identity = {**backend.identity, "threads": str(threads)}
        backend.poison = dict(fake_backend.poison)
        opened.append(backend)
        return backend

    monkeypatch.setattr(msdm_engine.engine, "open_backend", open_backend)
    return opened
