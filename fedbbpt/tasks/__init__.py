"""Tasks: losses and metrics from label scores, offsets of classes, readouts, label mapping, known wordings."""
