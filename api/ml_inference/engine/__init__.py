"""Runs models: sessions, batches, and the registry that loads each model once."""
