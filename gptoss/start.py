"""Why the program cannot start."""


class StartError(Exception):
    """Why the program cannot do what it was started for: one line for the person who started it."""
