"""Where workers come from: one port, an adapter for each place that runs processes."""
