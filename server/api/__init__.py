"""One file or folder for each API: it turns a body into a Turn, and deltas into JSON."""
