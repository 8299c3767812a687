"""Tests that take minutes each; they run only if SCHN_RAY_TRIALS is set."""

import os
from typing import TypeVar

import pytest

TRIALS = "SCHN_RAY_TRIALS"
Test = TypeVar("Test")

TAKES_MINUTES = pytest.mark.skipif(TRIALS not in os.environ, reason="takes minutes")


def takes_minutes(test: Test) -> Test:
    """Mark a test as slow, and skip it unless SCHN_RAY_TRIALS is set."""
    marked: Test = pytest.mark.slow(TAKES_MINUTES(test))
    return marked


def on_trial(whole: int, sample: int) -> int:
    """Return the first number if SCHN_RAY_TRIALS is set, else the second."""
    return whole if TRIALS in os.environ else sample
