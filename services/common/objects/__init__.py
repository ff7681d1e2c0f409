"""Where models are kept: one port, two adapters."""
