"""Field protocols, one folder each."""
