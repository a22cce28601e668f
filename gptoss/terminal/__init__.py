"""A conversation on the terminal: `gptoss chat`.

answers.py     who answers: what it is asked, and the pieces of text that it says
remote.py      any OpenAI-compatible server
local.py       the model, in this process
session.py     the conversation so far, and its next turn
slash_commands.py  /help, /reset, …
screen.py      what is shown, and how
chat.py        lines in, answers out, Ctrl-C
"""
