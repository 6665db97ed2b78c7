import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
if str(ROOT) not in sys.path:  # benchmarks is not installed; it is imported from the repository
    sys.path.insert(0, str(ROOT))


@pytest.fixture(autouse=True)
def _outsiders_warn():
    """Peers warn of their own affairs, some of them at import; that is no fault of the harness."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
