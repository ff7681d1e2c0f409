"""The native engine on a GPU: one command measures all that can only be known there. See `__main__.py`."""
