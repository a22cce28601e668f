"""The bundled tiny gpt-oss: its corpus, its training and its weights."""
