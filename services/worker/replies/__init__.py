"""The worker's side of the reply channel."""
