"""The Responses API: POST /v1/responses, and what comes back to a response by its id.

body.py           what may be asked, as a turn
tools.py          tools and tool_choice; actions.py: those whose calls are items of their own
history.py        items of the input → messages
writer.py         deltas → items and events
answer.py         the answer to one request, and what is kept of it
create.py         POST, in the foreground
background.py     responses that are made while nobody waits
stored.py         GET, DELETE, cancel, input_items, input_tokens
conversations.py  /v1/conversations
"""

from fastapi import APIRouter

from server.api.responses import conversations, create, stored

router = APIRouter()
for part in (create.router, stored.router, conversations.router):
    router.include_router(part)

__all__ = ["router"]
