"""What all tests share."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def single_thread():
    """One thread: these models are small, and sums then always run in the same order."""
    torch.set_num_threads(1)
