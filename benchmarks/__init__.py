"""Requests per second and latency, beside other servers in the same run: `python -m benchmarks.run`."""
