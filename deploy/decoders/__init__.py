"""From a detector's outputs to boxes, scores and classes; one file per form of output."""
