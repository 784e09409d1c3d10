"""The functions and classes behind `import fedbbpt`, for notebooks and scripts."""
