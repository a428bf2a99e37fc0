"""What several test modules use: no test module is another's helper."""
