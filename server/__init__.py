"""HTTP: the APIs, what they have in common, and how answers are streamed."""
