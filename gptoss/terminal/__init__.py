"""`gptoss chat`: a conversation on the terminal.

answers.py         the interface of everything that can answer
remote.py          answers of an OpenAI-compatible server
local.py           answers of a model in this process
session.py         the conversation so far, its settings, its next question
slash_commands.py  /help, /reset, …
screen.py          output
chat.py            input, Ctrl-C
"""
