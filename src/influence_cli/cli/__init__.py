"""The command line: one module a command; parse, call one function below, render.

Invariant: importing a command's module loads neither pydantic nor anything heavier; its function does.
"""
