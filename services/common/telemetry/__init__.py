"""Traces, metrics and logs of a process: `start` in `setup.py` is the way in; docs/observability.md has the names.

Services import from the modules; this package holds no names, so that a pure core never pulls in the SDK.
"""
