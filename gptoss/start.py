"""Errors that prevent the program from starting."""


class StartError(Exception):
    """Why the program cannot start: one line for the user."""
