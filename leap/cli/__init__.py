"""The command `leap`: the only part that resolves names, reads settings and talks to a person."""
