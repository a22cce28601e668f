"""How people ask: wordings as they are, and grammars that compose others."""
