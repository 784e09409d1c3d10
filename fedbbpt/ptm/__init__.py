"""The PTM (pre-trained model) service: a black box that answers prompts with label scores and with nothing else."""
