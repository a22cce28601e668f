"""Writes a number of bytes for people.  Imports nothing, so that the command line starts quickly."""


def format_bytes(size: float) -> str:
    """In units of 1000, as disks, hubs and GPU makers count: 13.8 GB."""
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size:.0f} B"
