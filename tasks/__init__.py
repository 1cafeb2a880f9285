"""Task families: data, models and losses; each is imported by its own name, nothing here."""
