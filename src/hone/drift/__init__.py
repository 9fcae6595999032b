"""Drift: do recent inputs of a model differ from the rows it was trained on?"""
