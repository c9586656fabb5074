"""Judge a candidate against the champion: score both on the same rows, compare, and decide by the gates."""
