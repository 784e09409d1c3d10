"""Sinks: the tools of others in which a run is shown, fed where its own records are written."""
