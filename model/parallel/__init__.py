"""One model computed by several processes together, each of which has a part of it: tensor parallel.

    ranks.py  who there is, what each has, and the two things they do together: add up, and gather
    lead.py   rank 0 tells the others each step; they follow

Of N ranks each has

    heads       H / N query heads, and the KV / N key and value heads that these share
    experts     E / N whole experts; the router is on every rank, and each keeps what its own experts add
    vocabulary  V / N rows of embedding and unembedding, rounded up; rows that are missing are zeros

So a layer has two sums over the ranks: of what attention adds to the residual stream, and of what the experts
add.  One more is of the embedding, and at the end the logits of all rows are gathered.  Every rank has the
same residual stream, to the bit, and so every rank's router chooses the same experts.

model/loading/part.py says which part of each tensor a rank reads.
"""
