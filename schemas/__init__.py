"""The shared language: values, messages, catalogue, tables. Imports nothing else of the project."""
