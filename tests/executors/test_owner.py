import os
import socket
import subprocess
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpbo.executors.owner import RELEASED, is_gone, ownership, process_start, start_from_stat

HOST = socket.gethostname()


@given(st.text(max_size=15), st.integers(1, 2**40))
def test_start_is_read_past_any_name(name, start):
    fields = " ".join(str(k) for k in range(4, 22))
    assert start_from_stat(f"17 ({name}) S {fields} {start} 23 24\n") == start


@pytest.mark.parametrize("state", ["Z", "X", "x"])
def test_a_zombie_has_ended(state):
    assert start_from_stat(f"17 (python) {state} {'0 ' * 30}") is None


def test_an_owner_is_alive_within_its_context_only():
    with ownership() as owner, ownership() as other:
        assert owner != other
        assert not is_gone(owner)
        assert owner.startswith(f"{HOST}/{os.getpid()}/{process_start(os.getpid())}/")
    assert is_gone(owner)


def test_a_process_that_was_killed_is_gone():
    with subprocess.Popen(["sleep", "60"]) as process:
        owner = f"{HOST}/{process.pid}/{process_start(process.pid)}/0"
        assert not is_gone(owner)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # a zombie: ended, and not yet waited for
        assert is_gone(owner)
    assert is_gone(owner)


def test_a_pid_that_is_used_again_is_another_process():
    with subprocess.Popen(["sleep", "60"]) as process:
        start = process_start(process.pid)
        assert is_gone(f"{HOST}/{process.pid}/{start - 1}/0")
        process.kill()


def test_a_start_that_is_not_known_tells_nothing():
    assert not is_gone(f"{HOST}/{os.getppid()}/0/0")


@pytest.mark.parametrize(
    "owner",
    [
        f"somewhere-else/{2**22 + 1}/7/0",
        f"{HOST}/not-a-pid/7/0",
        f"{HOST}/{2**22 + 1}",
        "",
        "ray",
    ],
)
def test_what_cannot_be_known_is_not_gone(owner):
    assert not is_gone(owner)


def test_released_is_gone():
    assert is_gone(RELEASED)


def test_a_loop_in_another_thread_is_alive():
    seen = []
    with ownership() as owner:
        thread = threading.Thread(target=lambda: seen.append(is_gone(owner)))
        thread.start()
        thread.join()
    assert seen == [False]


def test_process_start():
    assert process_start(os.getpid()) == process_start(os.getpid()) is not None
    assert process_start(2**22 + 1) is None  # beyond the largest pid there is
