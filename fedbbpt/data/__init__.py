"""Data: examples from files, their division over clients, and the data set of the demo."""
