"""Headrace: what leaves the server side — generated stubs, the Python client and the command line."""
