"""The table of all request fields: what this server does with each, under every name that clients use for it.

rows.py        the columns of a row
openai.py      the fields of OpenAI's SDK
extensions.py  further fields that this server honours, under vLLM's names
elsewhere.py   fields of vLLM, llama.cpp, Ollama and others: replaced by ours, ignored, or refused
others.py      names in the bodies of /v1/responses and /v1/messages
reading.py     applies the table to a body before it is validated
document.py    generates docs/fields.md from the table

To honour a new field, add a row to extensions.py and a field to a body in server/api.  A new name for an
existing field needs only a row in elsewhere.py.
"""
