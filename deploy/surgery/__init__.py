"""What graph rewrites are made of: the linked graph, the driver, and what several rules share."""
