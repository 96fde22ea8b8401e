"""Answers in sentences, written by a language model from a bundle of evidence, each checked for its citations."""
