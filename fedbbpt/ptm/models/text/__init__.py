"""Text models of transformers: encoders, masked and causal language models, sequence classifiers."""
