"""What limits clients before a handler runs: the limits of the HTTP parser, the Host header, rate limits, the
limits of a body, and the queue of large bodies.
"""
