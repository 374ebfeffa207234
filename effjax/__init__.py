"""effjax."""
