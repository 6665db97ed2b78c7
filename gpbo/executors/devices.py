"""Which part of the machine each worker gets: its GPUs and its number of threads.

Everything here goes by environment variables and needs no torch: a process that counts GPUs through CUDA
holds memory on them from then on.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from pathlib import Path

from gpbo.errors import SettingError

_GPUS = "CUDA_VISIBLE_DEVICES"
_THREADS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
_SMI_SECONDS = 30  # the first call after boot wakes every GPU

logger = logging.getLogger(__name__)


def nvidia_smi() -> str:
    """What ``nvidia-smi -L`` prints, or the empty string where it is missing or fails."""
    if shutil.which("nvidia-smi") is None:
        return ""
    try:
        asked = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=_SMI_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return asked.stdout if asked.returncode == 0 else ""


def device_files() -> list[str]:
    """The GPUs' device files."""
    return [str(path) for path in Path("/dev").glob("nvidia[0-9]*")]


def visible_gpus(
    environ: Mapping[str, str],
    *,
    listing: Callable[[], str] = nvidia_smi,
    files: Callable[[], Sequence[str]] = device_files,
) -> list[str]:
    """The GPUs that this process may use, named as CUDA_VISIBLE_DEVICES names them.

    An existing CUDA_VISIBLE_DEVICES is honoured; as in CUDA, its first empty or negative entry ends it.
    Slices of GPUs (MIG) are listed by their identifiers.
    """
    given = environ.get(_GPUS)
    if given is not None:
        names = (name.strip() for name in given.split(","))
        return list(takewhile(lambda name: name and not name.startswith("-"), names))
    listed = listing()
    slices = re.findall(r"UUID: (MIG-[^)]+)\)", listed)
    if slices:
        return slices
    n = len(re.findall(r"^GPU \d+:", listed, flags=re.MULTILINE)) or len(files())
    return [str(index) for index in range(n)]


def assign_gpus(gpus: Sequence[str], workers: int, gpus_per_trial: int) -> list[str | None]:
    """Each worker's CUDA_VISIBLE_DEVICES; None where there are no GPUs to give.

    Workers share GPUs, in turn, when there are not enough for each to have its own.

    Raises:
        SettingError: if one trial is to have more GPUs than there are.
    """
    if not gpus:
        return [None] * workers
    if gpus_per_trial > len(gpus):
        raise SettingError(
            f"`gpus_per_trial` must be at most the number of visible GPUs, {len(gpus)}, got {gpus_per_trial}."
        )
    if workers * gpus_per_trial > len(gpus):
        logger.info("%d workers share %d GPUs.", workers, len(gpus))
    n = len(gpus)
    return [
        ",".join(gpus[(worker * gpus_per_trial + k) % n] for k in range(gpus_per_trial))
        for worker in range(workers)
    ]


def worker_environ(environ: Mapping[str, str], gpus: str | None, workers: int, cores: int) -> dict[str, str]:
    """The environment of one of `workers` workers; numbers of threads that the user has set are kept."""
    threads = dict.fromkeys(_THREADS, str(max(1, cores // workers)))
    return {**threads, **environ, **({} if gpus is None else {_GPUS: gpus})}


def usable_cores() -> int:
    """How many CPU cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
