"""The state cache: token ids, chains of keys, opaque states, bytes. Does not know text, HTTP or torch."""
