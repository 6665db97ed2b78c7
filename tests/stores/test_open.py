"""From what the user names to a store."""

from pathlib import Path

import pytest

from gpbo.errors import SettingError, StoreError
from gpbo.stores.memory import MemoryStore
from gpbo.stores.open import open_store
from gpbo.stores.sql import SQLStore, study_names


def test_none_is_this_processes_memory() -> None:
    assert isinstance(open_store(None, "s"), MemoryStore)


def test_a_store_is_itself() -> None:
    store = MemoryStore()
    assert open_store(store, "s") is store


@pytest.mark.parametrize("kind", [Path, str, lambda path: f"sqlite:///{path}"])
def test_a_path_or_url_is_a_database(path: Path, kind: type) -> None:
    store = open_store(kind(path), "digits")
    assert isinstance(store, SQLStore)
    store.close()
    assert study_names(path) == ["digits"]


def test_what_is_not_there_is_not_made_unless_asked(path: Path) -> None:
    with pytest.raises(StoreError, match="there is no study file"):
        open_store(path, "s", create=False)


def test_an_empty_string_names_nothing() -> None:
    with pytest.raises(SettingError, match="`store` must name a file or a database, got an empty string"):
        open_store("", "s")
