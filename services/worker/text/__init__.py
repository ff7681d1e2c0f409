"""Language models on a worker: a lane of streams over a TextEngine."""
