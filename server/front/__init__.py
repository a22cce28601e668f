"""What requests pass on their way in: names, rates, counts and turns.  The gate and the protocol use them."""
