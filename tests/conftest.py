import os

# The matrices of tests are small: a second thread only waits, for minutes where the cores are shared.
os.environ["OMP_NUM_THREADS"] = "1"  # for the processes that tests start

import pytest
import torch
from filelock import FileLock
from hypothesis import settings

from gpbo.executors.devices import usable_cores

# No test is timed, and every run draws the same examples.
settings.register_profile("gpbo", deadline=None, derandomize=True)
settings.load_profile("gpbo")
torch.set_num_threads(1)

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
MOST_PROCESSES = 8  # each takes a gigabyte


def pytest_xdist_auto_num_workers(config):
    """A process for each core; none beside this one where single files or tests are asked for."""
    folders = all((config.invocation_params.dir / arg).is_dir() for arg in config.args)
    cores = min(usable_cores(), MOST_PROCESSES)
    return cores if folders and not config.option.keyword and cores > 1 else 0


@pytest.fixture(params=DEVICES)
def device(request):
    """Every device there is."""
    return request.param


@pytest.fixture
def one_ray(tmp_path_factory):
    """No other test starts Ray meanwhile: its many processes starve those of a second one."""
    folder = tmp_path_factory.getbasetemp()
    with FileLock((folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "ray.lock"):
        yield
