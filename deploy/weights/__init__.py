"""The weights of layers: found in a graph, rounded to integers, and stored compressed."""
