"""Jobs: what survives, and who goes first."""
