"""Published experiments on regularization, each from one set of spec files in three frameworks."""
