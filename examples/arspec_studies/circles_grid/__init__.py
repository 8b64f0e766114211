"""Two circles over a grid of coefficients: which penalty, where, and how much of it."""
