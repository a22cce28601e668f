"""Tensor parallelism: several processes (ranks) compute one model together, and each has a part of it.

    ranks.py  the ranks, the sizes of their parts, and their common operations: sum and gather
    lead.py   rank 0 sends each step to the others, which compute it too

Each of N ranks has

    heads       H / N query heads, and the KV / N key and value heads that these share
    experts     E / N whole experts; every rank has the whole router, and computes only its own experts
    vocabulary  V / N rows of embedding and unembedding, rounded up; missing rows are zeros

So in each layer two results are summed over the ranks: that of attention, and that of the experts.  The
embedding is summed too, and at the end the logits of all vocabulary rows are gathered.  The residual stream
is bit-identical on all ranks, so every rank's router chooses the same experts.

model/loading/part.py says which part of each tensor a rank reads.
"""
