"""What a flood of one tenant does to the others."""
