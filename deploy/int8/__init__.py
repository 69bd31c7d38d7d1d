"""One build: the candidates, INT8 and float, their stages, the race, and the choice."""
