"""The program's version, once: pyproject.toml reads it from here."""

VERSION = "0.2.0"
