"""PEOPLE: what somebody at a keyboard or in Python uses."""
