"""Budgets of memory: techniques, the search among them, budgets that change while training."""
