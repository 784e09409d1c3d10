"""The client: holds private labelled data, searches with the black box, tells the coordinator what its method tells."""
