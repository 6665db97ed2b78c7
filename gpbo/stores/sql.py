"""A store in a database: an SQLite file beside the user, or PostgreSQL by URL.

Every write increments the study's `seq` within its transaction, which also makes the writers of a study
wait for one another, and marks the trials it wrote with it. A reader keeps what it has read and fetches
only rows with a later `seq`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, final

import sqlalchemy as sa

from gpbo.errors import StoreError, did_you_mean
from gpbo.stores.database import Database
from gpbo.stores.place import locate
from gpbo.stores.rows import from_row, to_json, to_row
from gpbo.stores.schema import META, STUDIES, TRIALS
from gpbo.trial import Trial

_ADD_STUDY = sa.text("INSERT INTO gpbo_studies (name, seq) VALUES (:name, 0) ON CONFLICT (name) DO NOTHING")
_SET_META = sa.text(
    "INSERT INTO gpbo_meta (study_id, name, value) VALUES (:study, :name, :value) "
    "ON CONFLICT (study_id, name) DO UPDATE SET value = excluded.value"
)
_COLUMNS = [column for column in TRIALS.c if column.name not in ("study_id", "seq")]


def study_names(where: str | Path) -> list[str]:
    """The names of the studies that a file or a database holds, the oldest first.

    Raises:
        StoreError: if it cannot be read, or holds no study.
    """
    database = Database(locate(where, create=False), create=False)
    try:
        return _names(database)
    finally:
        database.close()


@final
class SQLStore:
    """One study's trials in a database that processes share; safe for threads and after a fork.

    Args:
        where: An SQLite file's path, or a URL: ``sqlite:///study.db``, ``postgresql+psycopg://host/db``.
        name: The study's name; a database may hold several.
        create: Whether a file or a study that is not there is made.

    Raises:
        StoreError: if it cannot be opened, or is not there and must not be made.
        MissingExtraError: if the database's driver is not installed.
    """

    def __init__(self, where: str | Path, name: str, *, create: bool = True) -> None:
        self._database = Database(locate(where, create=create), create=create)
        self._name = name
        self._asking = self._database.lock(f"study/{name}")
        self._trials: tuple[Trial, ...] = ()
        self._seq = 0
        try:
            self._study = self._find(create=create)
        except BaseException:
            self.close()
            raise
        self._meta = _Meta(self._database, self._study)

    def __reduce__(self) -> tuple[Any, ...]:
        raise StoreError(
            f"a store in {self._database.label} is not copied or pickled; open its study again where it is "
            f"wanted, with gpbo.Study.load({self._database.label!r}, name={self._name!r})."
        )

    @property
    def path(self) -> Path | None:
        """The SQLite file, or None for a server; checkpoints are kept beside it."""
        return self._database.path

    @property
    def meta(self) -> MutableMapping[str, Any]:
        """Named JSON values of the study."""
        return self._meta

    def trials(self) -> Sequence[Trial]:
        """All trials by number, as of now; reads only what is new.

        Raises:
            StoreError: if they cannot be read.
        """
        query = sa.select(*_COLUMNS, TRIALS.c.seq).where(
            TRIALS.c.study_id == self._study, TRIALS.c.seq > self._seq
        )
        with self._database.reading() as connection:
            rows = [row._asdict() for row in connection.execute(query.order_by(TRIALS.c.number))]
            if rows:
                self._keep([self._trial(row) for row in rows])
                self._seq = max(row["seq"] for row in rows)
            return self._trials

    def add(self, trials: Sequence[Trial]) -> None:
        """Append trials, numbered on from the last; all of them or, on an error, none.

        Raises:
            StoreError: if a number is taken or skipped, or the trials cannot be written.
        """
        rows = [to_row(trial) for trial in trials]
        if not rows:
            return
        with self._writing() as (connection, seq):
            last = sa.select(sa.func.max(TRIALS.c.number)).where(TRIALS.c.study_id == self._study)
            found = connection.scalar(last)
            n = 0 if found is None else found + 1
            numbers = [trial.number for trial in trials]
            if numbers != list(range(n, n + len(rows))):
                raise StoreError(f"new trials must be numbered on from {n}, got {numbers}.")
            marks = {"study_id": self._study, "seq": seq}
            connection.execute(TRIALS.insert(), [row | marks for row in rows])

    def swap(self, old: Trial, new: Trial) -> bool:
        """Replace `old` by `new` if it is still the stored value, durably; whether that was so.

        Raises:
            StoreError: if it cannot be written; the trial is then as it was.
        """
        expected, row = to_row(old), to_row(new)
        place = (TRIALS.c.study_id == self._study) & (TRIALS.c.number == old.number)
        with self._writing() as (connection, seq):
            found = connection.execute(sa.select(*_COLUMNS).where(place)).one_or_none()
            if found is None:
                return False
            stored = found._asdict()
            # Equal rows are equal trials, even where a value (nan) is not equal to itself.
            if stored != expected and self._trial(stored) != old:
                if old.number < len(self._trials):
                    # Whoever was given our copy may have changed it; the caller must find the truth next.
                    self._keep([self._trial(stored)])
                return False
            connection.execute(TRIALS.update().where(place).values(row | {"seq": seq}))
        return True

    def asking(self) -> AbstractContextManager[None]:
        """A lock between processes for choosing and adding trials; freed when its holder dies."""
        return self._asking.held()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """A block that only one thread of all processes is in at a time; free again when its holder dies.

        Raises:
            StoreError: if another is in it, or a file cannot be locked.
        """
        lock = self._database.lock(f"alone/{self._name}", file=f"{self._study}.lock")
        with lock.tried() as is_held:
            if not is_held:
                raise StoreError(
                    "another process or thread is at work on "
                    f"study {self._name!r} in {self._database.label}, and "
                    "only one may be; wait for it, end it, or use another name."
                )
            yield

    def close(self) -> None:
        """Let go of files and connections; the store is not used afterwards."""
        self._database.close()

    @contextmanager
    def _writing(self) -> Iterator[tuple[sa.Connection, int]]:
        """A transaction that writes to the study, and the `seq` to mark its rows with."""
        mine = STUDIES.c.id == self._study
        with self._database.writing() as connection:
            connection.execute(STUDIES.update().where(mine).values(seq=STUDIES.c.seq + 1))
            yield connection, connection.execute(sa.select(STUDIES.c.seq).where(mine)).scalar_one()

    def _find(self, *, create: bool) -> int:
        """The study's row, made where there is none."""
        query = sa.select(STUDIES.c.id).where(STUDIES.c.name == self._name)
        with self._database.reading() as connection:
            found = connection.scalar(query)
        if found is None and create:
            with self._database.writing() as connection:
                connection.execute(_ADD_STUDY, {"name": self._name})
                found = connection.scalar(query)
        if found is None:
            names = _names(self._database)
            listed = ", ".join(repr(name) for name in names) or "none"
            hint = did_you_mean(self._name, names)
            raise StoreError(
                f"{self._database.label} holds no study {self._name!r}; it holds {listed}.{hint}"
            )
        return int(found)

    def _keep(self, trials: list[Trial]) -> None:
        # A new tuple, because callers still have the old one.
        kept = list(self._trials)
        for trial in trials:
            kept[trial.number : trial.number + 1] = [trial]
        self._trials = tuple(kept)

    def _trial(self, row: Mapping[str, Any]) -> Trial:
        try:
            return from_row(row)
        except (ValueError, TypeError) as error:
            raise StoreError(
                f"{self._database.label} is damaged: trial {row['number']} of study {self._name!r} cannot "
                f"be read ({error}); use a copy."
            ) from None


@final
class _Meta(MutableMapping[str, Any]):
    """The named values of a study; each is read when it is asked for and written when it is set."""

    def __init__(self, database: Database, study: int) -> None:
        self._database = database
        self._study = study

    def __getitem__(self, name: str) -> Any:
        with self._database.reading() as connection:
            text = connection.scalar(sa.select(META.c.value).where(self._named(name)))
        if text is None:
            raise KeyError(name)
        try:
            return json.loads(text)
        except ValueError as error:
            raise StoreError(
                f"{self._database.label} is damaged: {name!r} in it cannot be read ({error}); use a copy."
            ) from None

    def __setitem__(self, name: str, value: Any) -> None:
        text = to_json(value, f"the study's {name!r}")
        with self._database.writing() as connection:
            connection.execute(_SET_META, {"study": self._study, "name": name, "value": text})

    def __delitem__(self, name: str) -> None:
        with self._database.writing() as connection:
            if not connection.execute(META.delete().where(self._named(name))).rowcount:
                raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        query = sa.select(META.c.name).where(META.c.study_id == self._study).order_by(META.c.name)
        with self._database.reading() as connection:
            names = connection.scalars(query).all()
        return iter(names)

    def __len__(self) -> int:
        return len(list(iter(self)))

    def _named(self, name: str) -> sa.ColumnElement[bool]:
        return (META.c.study_id == self._study) & (META.c.name == name)


def _names(database: Database) -> list[str]:
    with database.reading() as connection:
        return list(connection.scalars(sa.select(STUDIES.c.name).order_by(STUDIES.c.id)))
