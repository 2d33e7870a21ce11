"""Small trained parts put into a frozen model: each module here wraps a part of a layer and computes the same call with something added.

Further letters: R rank or bottleneck width, N virtual tokens, I and O the folded input and output axes of a matrix.
"""
