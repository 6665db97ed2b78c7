"""A path for a study, and stores that are closed when the test is over."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gpbo.stores.sql import SQLStore


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "study.db"


@pytest.fixture
def open_store(path: Path) -> Iterator[Callable[..., SQLStore]]:
    opened = []

    def open_it(where: Path | str = path, name: str = "s", **options: Any) -> SQLStore:
        store = SQLStore(where, name, **options)
        opened.append(store)
        return store

    yield open_it
    for store in opened:
        store.close()
