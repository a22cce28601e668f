"""The corpus of the demo model: generated from a seed, with one file for each kind of conversation."""
