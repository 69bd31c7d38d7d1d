"""The usual reasons why a deployed network is wrong: each looks at the evidence by itself, and says
what it saw, or nothing."""
