"""The language gpt-oss speaks: a conversation → tokens (render), tokens → deltas (Reader).

https://github.com/openai/harmony, docs/format.md
"""
