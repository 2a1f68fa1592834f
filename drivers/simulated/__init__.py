"""Simulated devices: physics instead of a wire."""
