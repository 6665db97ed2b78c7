import subprocess

import pytest

from gpbo.errors import SettingError
from gpbo.executors import devices
from gpbo.executors.devices import assign_gpus, usable_cores, visible_gpus, worker_environ

TWO_GPUS = """\
GPU 0: NVIDIA H200 (UUID: GPU-11111111-2222-3333-4444-555555555555)
GPU 1: NVIDIA H200 (UUID: GPU-66666666-7777-8888-9999-000000000000)
"""
TWO_SLICES = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-5d5ba0d6)
  MIG 3g.20gb     Device  0: (UUID: MIG-aaa)
  MIG 3g.20gb     Device  1: (UUID: MIG-bbb)
"""


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ("0,1", ["0", "1"]),
        (" 3 , GPU-8932f937", ["3", "GPU-8932f937"]),
        ("", []),
        ("-1", []),
        ("2,-1,0", ["2"]),
        ("NoDevFiles", ["NoDevFiles"]),
    ],
)
def test_an_existing_setting_is_honoured(given, names):
    def never():
        raise AssertionError

    assert visible_gpus({"CUDA_VISIBLE_DEVICES": given}, listing=never, files=never) == names


@pytest.mark.parametrize(
    ("listing", "files", "names"),
    [
        (TWO_GPUS, [], ["0", "1"]),
        (TWO_SLICES, ["/dev/nvidia0"], ["MIG-aaa", "MIG-bbb"]),
        ("", ["/dev/nvidia3", "/dev/nvidia5"], ["0", "1"]),
        ("No devices found.\n", [], []),
        ("", [], []),
    ],
)
def test_gpus_are_counted_without_torch(listing, files, names):
    assert visible_gpus({}, listing=lambda: listing, files=lambda: files) == names


@pytest.mark.parametrize(
    ("body", "text"), [("echo 'GPU 0: H200'", "GPU 0: H200\n"), ("echo no; exit 9", ""), (None, "")]
)
def test_nvidia_smi(body, text, tmp_path, monkeypatch):
    if body is not None:
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin" if body else str(tmp_path))
    assert devices.nvidia_smi() == text


def test_nvidia_smi_that_hangs(tmp_path, monkeypatch):
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(devices, "_SMI_SECONDS", 0.1)
    assert devices.nvidia_smi() == ""


def test_device_files_agree_with_this_machine():
    listed = subprocess.run("ls /dev | grep -c '^nvidia[0-9]'", shell=True, capture_output=True, text=True)
    assert len(devices.device_files()) == int(listed.stdout)


@pytest.mark.parametrize(
    ("gpus", "workers", "per_trial", "given"),
    [
        ([], 2, 1, [None, None]),
        (["0", "1"], 2, 1, ["0", "1"]),
        (["0", "1", "2", "3"], 2, 2, ["0,1", "2,3"]),
        (["0", "1"], 3, 1, ["0", "1", "0"]),
        (["0", "1", "2"], 2, 2, ["0,1", "2,0"]),
        (["5", "6", "7"], 2, 1, ["5", "6"]),
        (["0"], 2, 0, ["", ""]),
    ],
)
def test_each_worker_is_given_its_gpus(gpus, workers, per_trial, given):
    assert assign_gpus(gpus, workers, per_trial) == given


def test_one_trial_cannot_have_more_gpus_than_there_are():
    with pytest.raises(SettingError, match=r"`gpus_per_trial` must be at most .* GPUs, 2, got 3"):
        assign_gpus(["0", "1"], 1, 3)


@pytest.mark.parametrize(("workers", "threads"), [(1, "8"), (3, "2"), (8, "1"), (20, "1")])
def test_cores_are_shared(workers, threads):
    environ = worker_environ({"HOME": "/root", "MKL_NUM_THREADS": "6"}, None, workers, 8)
    assert environ["OMP_NUM_THREADS"] == environ["OPENBLAS_NUM_THREADS"] == threads
    assert environ["MKL_NUM_THREADS"] == "6"
    assert environ["HOME"] == "/root"
    assert "CUDA_VISIBLE_DEVICES" not in environ


def test_a_workers_gpus_take_the_place_of_the_drivers():
    assert worker_environ({"CUDA_VISIBLE_DEVICES": "0,1"}, "1", 2, 8)["CUDA_VISIBLE_DEVICES"] == "1"


def test_usable_cores():
    assert usable_cores() >= 1
