"""What people look at: the graph's cost, and where the error comes from."""
