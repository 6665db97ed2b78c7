"""How much of a trial is run before it is judged."""
