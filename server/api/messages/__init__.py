"""Anthropic's Messages API: POST /v1/messages and /v1/messages/count_tokens.

body.py      the fields of a request → Turn
history.py   messages and their blocks → Conversation
blocks.py    deltas → content blocks
answer.py    content blocks → events, or one object
errors.py    errors in Anthropic's format
route.py     the endpoints
"""
