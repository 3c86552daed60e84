"""Output that follows a grammar: compiled grammars, their states on paths, masks of tokens."""
