"""The records every room speaks in. Immutable, standard library only."""
