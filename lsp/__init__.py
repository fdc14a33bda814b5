"""The front end:

LSP, the command line and one wire to the daemon. Knows no tokens and no torch; imports `context` and `daemon.protocol`
only.
"""
