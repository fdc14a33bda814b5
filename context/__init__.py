"""The text that a model reads: a repository's files and the windows around a cursor. Knows no tokens, LSP or HTTP."""
