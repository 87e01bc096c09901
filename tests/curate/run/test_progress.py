"""Progress bars of resumed work, with and without a terminal that shows them."""

import io

import pytest
from tqdm import tqdm

from curate.run.progress import count_done


@pytest.mark.parametrize("disable", [False, True])
def test_work_of_an_earlier_run_is_counted(disable):
    """``TQDM_DISABLE=1``, as CI sets it, makes bars that lack most of their attributes."""
    with tqdm(total=5, file=io.StringIO(), disable=disable) as bar:
        count_done(bar, 3)
        bar.update(1)
        assert disable or (bar.n, bar.initial) == (4, 3)
