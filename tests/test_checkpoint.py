"""The directory of one trial, and what the loop deletes; kills between steps are in test_budgets.py."""

import json
import os
import shutil

import pytest

from gpbo.checkpoint import Checkpoints, Folder, Shelf, delete
from gpbo.errors import CheckpointError, SettingError
from gpbo.trial import Observation, State, Trial

CONFIG = {"x": 0.25, "kind": "a"}


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path / "7", "study-1", 7, CONFIG)


def write(folder, text="hello", name="weights"):
    path = folder.writing() / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def newest(folder):
    path, manifest = folder.latest()
    return {p.relative_to(path).as_posix(): p.read_text() for p in path.rglob("*") if p.is_file()}, manifest


class TestFolder:
    def test_nothing_is_made_before_it_is_needed(self, folder):
        folder.clear()
        assert folder.latest() is None
        assert folder.commit(3, 0.5) is False
        assert not folder.path.exists()

    def test_a_commit_holds_what_was_written_and_whose_it_is(self, folder):
        write(folder)
        write(folder, "deep", "a/b/deep")
        (folder.writing() / "empty").mkdir()
        assert folder.latest() is None  # not yet
        assert folder.commit(3, 0.5) is True
        files, manifest = newest(folder)
        assert files == {"weights": "hello", "a/b/deep": "deep"}
        assert (manifest.study, manifest.trial, manifest.budget, manifest.value) == ("study-1", 7, 3, 0.5)
        assert json.loads(manifest.config) == CONFIG
        # CRC-32 of "hello"
        assert ["weights", 5, 0x3610A686] in manifest.files

    def test_a_commit_takes_the_place_of_the_last_and_the_next_starts_empty(self, folder):
        for k in (1, 2, 3):
            write(folder, str(k))
            folder.commit(k, 0.0)
            assert list(folder.writing().iterdir()) == []
        assert newest(folder)[0] == {"weights": "3"}
        assert sorted(p.name for p in folder.path.iterdir()) == ["3", "next"]
        assert folder.commit(4, 0.0) is False
        assert newest(folder)[1].budget == 3

    def test_what_was_not_committed_is_cleared_and_the_last_stays(self, folder):
        write(folder)
        folder.commit(1, 0.0)
        write(folder, "half")
        folder.clear()
        assert newest(folder)[0] == {"weights": "hello"}

    def test_of_two_the_newest_counts(self, folder, tmp_path):
        """As after a death between the renaming and the removal of the one before."""
        write(folder)
        folder.commit(1, 0.0)
        shutil.copytree(folder.path / "1", tmp_path / "old")
        write(folder, "new")
        folder.commit(2, 0.0)
        shutil.copytree(tmp_path / "old", folder.path / "1")
        assert newest(folder)[0] == {"weights": "new"}
        write(folder, "newer")
        folder.commit(3, 0.0)
        assert newest(folder)[0] == {"weights": "newer"}
        assert [p.name for p in folder.path.iterdir()] == ["3"]

    @pytest.mark.parametrize(
        ("damage", "message"),
        [
            (lambda at: (at / "files/weights").write_text("hel"), "weights has 3 of its 5 bytes"),
            (lambda at: (at / "files/weights").write_text("hallo"), "weights has other contents"),
            (lambda at: (at / "files/weights").unlink(), "weights is missing"),
            (lambda at: (at / "checkpoint.json").unlink(), "no manifest can be read"),
            (lambda at: (at / "checkpoint.json").write_text('{"study": "st'), "no manifest can be read"),
            (lambda at: (at / "checkpoint.json").write_text('{"loss": 1}'), "no manifest can be read"),
            (lambda at: (at / "checkpoint.json").write_text("[]"), "no manifest can be read"),
        ],
    )
    def test_damage_is_seen(self, folder, damage, message):
        write(folder)
        folder.commit(1, 0.0)
        damage(folder.path / "1")
        with pytest.raises(CheckpointError, match=rf"7/1 is damaged: {message}"):
            folder.latest()

    @pytest.mark.parametrize(
        ("other", "message"),
        [
            (("study-2", 7, CONFIG), "made for study 'study-1', not 'study-2'"),
            (("study-1", 8, CONFIG), "made for trial 7, not 8"),
            (("study-1", 7, {"x": 0.5, "kind": "a"}), r"made for config .*0\.25.*, not .*0\.5"),
        ],
    )
    def test_anothers_is_refused(self, folder, other, message):
        write(folder)
        folder.commit(1, 0.0)
        with pytest.raises(CheckpointError, match=f"is another's: it was {message}"):
            Folder(folder.path, *other).latest()

    @pytest.mark.parametrize("make", [lambda p: p.symlink_to("/etc"), os.mkfifo])
    def test_only_files_are_committed(self, folder, make):
        make(folder.writing() / "odd")
        with pytest.raises(CheckpointError, match=r"made of files and directories, but .*odd is neither"):
            folder.commit(1, 0.0)


def trial(number, state, value=None, budget=None):
    seen = () if value is None else (Observation((value,), budget),)
    return Trial(number, {}, state=state, budget=budget, observations=seen)


class TestShelf:
    def shelf(self, path, n, n_bytes=100, **settings):
        shelf = Shelf(path / "id", "id", Checkpoints(path, **settings))
        for number in range(n):
            folder = shelf.folder(Trial(number, {}))
            write(folder, "x" * n_bytes)
            folder.commit(1, 0.0)
        return shelf

    def left(self, shelf):
        return sorted(int(p.name) for p in shelf.path.iterdir() if p.name.isdecimal())

    def test_keeps_running_paused_and_pinned(self, tmp_path):
        states = list(State)
        trials = [trial(k, state) for k, state in enumerate([*states, State.COMPLETE])]
        shelf = self.shelf(tmp_path, len(trials) + 1)  # the last belongs to a trial that is not known here
        aside = shelf.set_aside(trials, {5}, maximize=False)
        kept = [states.index(State.RUNNING), states.index(State.PAUSED), 5, 6]
        assert self.left(shelf) == sorted(kept)
        assert len(aside) == 3
        delete(aside)
        assert {p.name for p in shelf.path.iterdir()} == {str(k) for k in kept}
        assert shelf.set_aside(trials, {5}, maximize=False) == []

    def test_what_a_killed_loop_had_set_aside_is_deleted_by_the_next(self, tmp_path):
        shelf = self.shelf(tmp_path, 1)
        (aside,) = shelf.set_aside([trial(0, State.STOPPED)], (), maximize=False)
        assert shelf.set_aside([trial(0, State.STOPPED)], (), maximize=False) == [aside]

    @pytest.mark.parametrize("maximize", [False, True])
    def test_a_byte_budget_gives_up_the_worst_ranked_first(self, tmp_path, maximize):
        sign = -1 if maximize else 1
        trials = [
            trial(0, State.PAUSED, sign * 0.1, 3),  # best of two: half
            trial(1, State.PAUSED, sign * 0.9, 3),  # worst, of the larger budget: second
            trial(2, State.PAUSED, sign * 0.2, 1),
            trial(3, State.PAUSED, sign * 0.8, 1),  # worst, and the cheapest to make again: first
            trial(4, State.PAUSED, sign * 0.5, 1),  # two thirds: third
            trial(5, State.RUNNING, sign * 9.0, 1),
        ]
        one = 100 + len((self.shelf(tmp_path, 6).path / "0" / "1" / "checkpoint.json").read_text())
        for spare, left in ((6, [0, 1, 2, 3, 4, 5]), (5, [0, 1, 2, 4, 5]), (4, [0, 2, 4, 5]), (3, [0, 2, 5])):
            shelf = self.shelf(tmp_path / str(spare), 6, max_bytes=spare * one + 20)
            shelf.set_aside(trials, (), maximize)
            assert self.left(shelf) == left

    def test_one_in_use_is_never_deleted_for_want_of_bytes(self, tmp_path, caplog):
        trials = [
            trial(0, State.RUNNING, 1.0, 1),
            trial(1, State.COMPLETE, 0.0, 9),
            trial(2, State.PAUSED, 1.0, 1),
        ]
        shelf = self.shelf(tmp_path, 3, max_bytes=1)
        shelf.set_aside(trials, {1}, maximize=False)
        assert self.left(shelf) == [0, 1]
        assert "more than `max_bytes`" in caplog.text

    def test_nothing_there_is_nothing_to_do(self, tmp_path):
        assert Shelf(tmp_path / "id", "id", Checkpoints(tmp_path)).set_aside([], (), maximize=False) == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"directory": ""}, "`directory` must be a path, got ''"),
        ({"directory": 3}, "`directory` must be a path, got 3"),
        ({"directory": "d", "max_bytes": 0}, "`max_bytes` must be a whole number >= 1, got 0"),
        ({"directory": "d", "max_bytes": 1e9}, "`max_bytes` must be a whole number >= 1, got 1000000000.0"),
        ({"directory": "d", "keep_best": -1}, "`keep_best` must be a whole number >= 0, got -1"),
    ],
)
def test_bad_settings(given, message):
    with pytest.raises(SettingError, match=message):
        Checkpoints(**given)
