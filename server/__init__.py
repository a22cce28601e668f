"""WORDS: the OpenAI-compatible HTTP interface, and harmony, the language gpt-oss speaks."""
