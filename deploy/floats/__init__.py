"""The float types of a graph: what computes in 16 bits, what stays in 32, with the fewest Casts."""
