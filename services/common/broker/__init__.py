"""The batch queue between gateways and workers: one port, two adapters, and the one place that picks."""
