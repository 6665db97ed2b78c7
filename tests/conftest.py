import pytest
import torch
from hypothesis import settings

# No test is timed, and every run draws the same examples.
settings.register_profile("gpbo", deadline=None, derandomize=True)
settings.load_profile("gpbo")
# The matrices of tests are small: a second thread only waits, for minutes where the cores are shared.
torch.set_num_threads(1)

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.fixture(params=DEVICES)
def device(request):
    """Every device there is."""
    return request.param
