"""What all tests share."""

import pytest
import torch
from hypothesis import settings


@pytest.fixture(autouse=True, scope="session")
def single_thread():
    """One thread: these models are small, and sums then always run in the same order."""
    torch.set_num_threads(1)


# The same examples in every run, and none kept on disk; all properties together below 30 seconds.
settings.register_profile("fixed", derandomize=True, database=None, deadline=None, max_examples=60)
settings.load_profile("fixed")
