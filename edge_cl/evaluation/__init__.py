"""How learners are held against each other: protocols, metrics and the trial itself; pure."""
