"""The dashboard: a web page that shows the runs of a coordinator while they go on, and past runs of a folder."""
