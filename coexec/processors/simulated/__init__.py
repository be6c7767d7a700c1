"""Phones that are not here: processors whose time is simulated from published figures."""
