"""The table of all request fields: what each does here, whoever's name for it that is.

rows.py        what a row says
openai.py      the fields of OpenAI's SDK
extensions.py  what this server honours beside them, under vLLM's names
elsewhere.py   what vLLM, llama.cpp, Ollama and others send: the same as a field of ours, ignored, refused
others.py      names in the bodies of /v1/responses and /v1/messages
reading.py     a body is read by the table: before it is validated
document.py    docs/fields.md is made from the table

To honour a field: a row in extensions.py and a field of a body in server/api.  Another name for it: a row in
elsewhere.py is all.
"""
