"""The corpus the demo model learns from: synthetic, seeded, made by us, one file per kind of conversation."""
