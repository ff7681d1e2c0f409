"""Hypothesis without deadlines: on a shared machine a case that takes long says nothing about the code.

CI draws the same cases each time, so that a red run is about the change in it; runs by hand draw new ones.
"""

import os

import pytest
from hypothesis import settings

settings.register_profile("headrace", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "headrace")


def pytest_itemcollected(item: pytest.Item) -> None:
    """`make test` runs two processes: a file's tests share what they start, and so do all that use one stack."""
    if item.get_closest_marker("xdist_group") is None:
        item.add_marker(pytest.mark.xdist_group(str(item.path)))
