"""Exports of models to formats of other projects."""
