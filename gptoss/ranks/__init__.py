"""The processes of `--tensor-parallel N`: this one is rank 0, and starts the others.

    start.py    rank 0: starts the others, loads its own part, and makes the model that the engine runs
    others.py   rank 0: what it tells the others and hears from them, and what ends them
    member.py   any other rank, from its start to its end
    channel.py  messages between two of them
    job.py      what a rank is to load, and how

A rank that dies, or whose process does not run, ends them all: it cannot be replaced, as its part of the KV
cache is gone.  Each process says that it lives twice a second.  Rank 0 ends the others and tells the engine;
another rank that does not hear from rank 0 ends rank 0.
"""
