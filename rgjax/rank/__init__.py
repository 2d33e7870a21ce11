"""Recommenders that score the whole catalogue for a user, and the choice of the best items. Start with `recommender`."""
