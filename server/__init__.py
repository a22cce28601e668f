"""HTTP: the APIs that clients speak, what surrounds them, and how answers are streamed."""
