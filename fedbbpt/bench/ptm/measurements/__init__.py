"""The measurements of `bench ptm`, a module for each; each has a PART name and a function `measure`."""
