"""The `headrace` command: one module for each group of commands."""
