"""One INT8 build: the candidates, their stages, the race between them, and the choice."""
