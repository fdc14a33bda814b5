"""The daemon: one process per user and model. Knows requests, one model thread and HTTP; does not know LSP or repositories on disk."""
