"""A bundle of evidence written down: for programs, for people and for language models."""
