"""Checks on incoming requests: the Host header, rate limits, the limits of a body, and the queue of large
bodies.
"""
