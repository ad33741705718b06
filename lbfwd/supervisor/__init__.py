"""Decides: starts, feeds, watches and stops what forwards packets."""
