"""The report: its content as JSON, and the page people read."""
