"""The pytest plugin: cassettes of tests."""
