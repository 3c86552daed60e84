"""Searches by node handles against the same searches resent as text, expansion by expansion."""
