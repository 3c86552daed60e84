"""Operators of one forward pass: what each is, what it computes and what it moves."""
