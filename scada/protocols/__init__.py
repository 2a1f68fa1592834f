"""What each protocol's configuration may say, one module for each protocol."""
