"""What may stand between a model and a target's engine: a rule per file, `def <name>(case)`."""
