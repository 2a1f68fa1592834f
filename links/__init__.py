"""Network shells: the only code that talks to brokers and field endpoints."""
