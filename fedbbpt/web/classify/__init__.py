"""Classification with a tuned prompt over HTTP."""
