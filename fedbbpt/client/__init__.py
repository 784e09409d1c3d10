"""The client: it holds private labelled data, searches with the black box, and sends its updates to the coordinator."""
