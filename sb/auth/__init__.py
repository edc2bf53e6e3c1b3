"""Proving who someone is and deciding what they may do."""
