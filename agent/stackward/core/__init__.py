"""Pure words and rules: no I/O, and nothing of ours is imported."""
