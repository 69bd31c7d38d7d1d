"""Where accuracy goes: every stage against the untouched model, and the node that lost it."""
