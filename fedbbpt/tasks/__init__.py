"""Tasks: losses and metrics from label scores, offsets of classes, label mapping, known wordings."""
