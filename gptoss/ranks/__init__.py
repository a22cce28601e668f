"""The processes of `--tensor-parallel N`: this one is rank 0, and starts the others.

    start.py    rank 0: starts the others, loads its own part, and makes the model that the engine runs
    others.py   rank 0: sends messages to the others, receives theirs, notices when one is lost, and ends them
    member.py   any other rank, from its start to its end
    channel.py  messages between rank 0 and another rank
    job.py      what a rank loads, and with which options

If one rank dies or hangs, all end: it cannot be replaced, because its part of the KV cache is lost.  Each
process sends a heartbeat twice a second.  If another rank is lost, rank 0 ends the others and informs the
engine.  If a rank gets no heartbeat from rank 0, it kills rank 0.
"""
