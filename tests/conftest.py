"""Hypothesis without deadlines: on a shared machine a case that takes long says nothing about the code."""

from hypothesis import settings

settings.register_profile("headrace", deadline=None)
settings.load_profile("headrace")
