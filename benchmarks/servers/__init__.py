"""The servers that Headrace is measured beside. Each file runs in its own environment and imports nothing of ours."""
