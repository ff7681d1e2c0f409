"""How many workers there should be: a pure function of time, what was observed and what was remembered."""
