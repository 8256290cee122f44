"""Rates, quotas and the weight of a request: who may use how much."""
