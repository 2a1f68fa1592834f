"""The operator's command: starts everything, and looks into a running Tagwire."""
