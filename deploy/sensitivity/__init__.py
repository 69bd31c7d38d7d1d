"""What INT8 costs layer by layer, each measured alone."""
