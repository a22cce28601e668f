"""One file or folder for each API: a body becomes a turn, deltas become JSON."""
