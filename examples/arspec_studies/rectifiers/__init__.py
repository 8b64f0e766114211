"""Deep sparse rectifiers: how many zeros a ReLU network has, and how many an L1 penalty adds."""
