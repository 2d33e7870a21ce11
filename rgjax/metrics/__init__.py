"""Was it good: overlap with references, grounding, diversity, floors and intervals. Start with `suite`."""
