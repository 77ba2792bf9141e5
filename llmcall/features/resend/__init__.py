"""Recorded requests, sent again: does the model still answer as it did?"""
