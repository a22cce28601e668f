"""The Responses API: POST /v1/responses, and the endpoints for stored responses and conversations.

body.py           the fields of a request → Turn
tools.py          tools and tool_choice; actions.py: tools whose calls have items of their own
history.py        items of the input → messages
writer.py         deltas → items and events
answer.py         the answer to one request, and what is stored of it
create.py         POST, in the foreground
background.py     responses in the background
stored.py         GET, DELETE, cancel, input_items, input_tokens
conversations.py  /v1/conversations
"""

from fastapi import APIRouter

from server.api.responses import conversations, create, stored

router = APIRouter()
for part in (create.router, stored.router, conversations.router):
    router.include_router(part)

__all__ = ["router"]
