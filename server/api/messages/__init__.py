"""POST /v1/messages and /v1/messages/count_tokens: the server as Anthropic's clients know one.

body.py      the fields of a request → Turn
history.py   messages and their blocks → Conversation
blocks.py    deltas → content blocks
answer.py    content blocks → events, or one object
errors.py    errors in Anthropic's shape
route.py     the endpoints
"""
