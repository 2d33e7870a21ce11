"""Benchmarks of text GANs, without inputs: texts of a known truth, and captions."""
