"""vLLM inside the worker: `opening` starts it, `engine` drives it, `sequence` tells what comes of one request."""
