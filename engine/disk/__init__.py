"""The prefix cache on disk: `cache` decides what is stored and loaded, `store` is the thread that reads and
writes, and `files` is the format of a page on disk.
"""
